"""`spectrain-suggest` on a small photograph: it prints a table, the reason and an override that training accepts."""

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from spectrain.cli.config_dir import config_dir
from spectrain.cli.overrides import composed
from spectrain.cli.suggest import suggest
from spectrain.cli.validation import validate
from spectrain.errors import InputError


def config(folder: Path, *more: str) -> DictConfig:
    image = np.random.default_rng(0).integers(0, 255, (12, 12), dtype=np.uint8)
    Image.fromarray(image).save(folder / "image.png")
    words = [f"data.path={folder}/image.png", "data.size=12", "model.width=16", f"paths.output_dir={folder}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("train", [*words, "spectrum.rank=20", "trainer.max_steps=30", "logger=none", *more])


def test_suggests_for_a_config_and_says_what_to_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = suggest(config(tmp_path))
    printed = capsys.readouterr().out
    assert "predicted error" in printed
    assert found.reason in printed
    assert found.steps <= 30
    assert len(list(tmp_path.glob("suggestion*/suggestion.*"))) >= 2
    words = next(line for line in printed.splitlines() if line.startswith("To take it: "))
    validate(config(tmp_path, *words.removeprefix("To take it: ").split()))


def test_an_equation_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not know equations"):
        suggest(composed(["experiment=pinn_poisson2d", f"paths.output_dir={tmp_path}"]))
    assert not list(tmp_path.iterdir())
