"""A checkpoint of another version loads, or the refusal says which version wrote it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from program import TINY, call, load, train

import spectrain

LAST = "run/checkpoints/last.ckpt"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(folder, "trainer.max_steps=3")
    return folder / "checkpoints" / "last.ckpt"


def written_by(checkpoint: Path, version: str | None, change: Change = lambda found: None) -> None:
    """A run folder in the present one, whose checkpoint is changed."""
    found = load(checkpoint)
    found["spectrain_version"] = version
    if version is None:
        del found["spectrain_version"]
    change(found)
    Path(LAST).parent.mkdir(parents=True)
    torch.save(found, LAST)
    Path("run/config.yaml").write_text("of an earlier run\n")


def resumed() -> Any:
    return call(f"ckpt_path={LAST}", "trainer.max_steps=6")


def add_keys(found: dict[str, Any]) -> None:
    """What later versions may add."""
    found["later"] = 1
    found["callbacks"]["Later"] = {"a": 1}
    found["callbacks"]["SpectrumCallback"]["later"] = 1


@pytest.mark.parametrize("version", ["0.0.9", "9.9.9"])
@pytest.mark.parametrize("change", [lambda found: None, add_keys], ids=["same", "more_keys"])
def test_what_can_be_read_is_read(checkpoint: Path, version: str, change: Change) -> None:
    written_by(checkpoint, version, change)
    outcome = resumed()
    assert outcome.code == 0, outcome.err
    assert f"was written by spectrain {version}, and this is {spectrain.__version__}" in outcome.err
    assert load(Path(LAST))["spectrain_version"] == spectrain.__version__


MISSING: dict[str, Change] = {
    "a callback's key": lambda found: found["callbacks"]["SpectrumCallback"].pop("refreshed_at"),
    "random numbers": lambda found: found["callbacks"]["RandomState"].pop("numpy"),
    "the optimizer": lambda found: found.pop("optimizer_states"),
    "an optimizer's group": lambda found: found["optimizer_states"][0]["param_groups"].pop(),
    "the preconditioner's key": lambda found: found["preconditioner"].clear(),
    "weights": lambda found: found["state_dict"].popitem(),
    "loops": lambda found: found.pop("loops"),
    "the step": lambda found: found.pop("global_step"),
}


@pytest.mark.parametrize("what", [*MISSING])
def test_what_cannot_be_read_names_the_version(checkpoint: Path, what: str) -> None:
    written_by(checkpoint, "0.0.9", MISSING[what])
    before = Path(LAST).read_bytes()
    error = resumed().error
    assert f"written by spectrain 0.0.9, and this is {spectrain.__version__}" in error, error
    assert Path(LAST).read_bytes() == before


def test_a_configuration_with_a_key_of_another_version(checkpoint: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        found["config"] = found["config"].replace("  width: 16", "  width: 16\n  colour: 3")

    written_by(checkpoint, "0.0.9", change)
    outcome = resumed()
    assert "colour" in outcome.error and "was written by spectrain 0.0.9" in outcome.err


def test_no_version_is_not_ours(checkpoint: Path) -> None:
    written_by(checkpoint, None)
    assert "was not written by spectrain" in resumed().error


def test_evaluate_says_so_too(checkpoint: Path) -> None:
    written_by(checkpoint, "0.0.9", MISSING["weights"])
    assert "written by spectrain 0.0.9" in call(f"ckpt_path={LAST}", program="evaluate").error


def test_an_own_checkpoint_that_was_changed(checkpoint: Path) -> None:
    written_by(checkpoint, spectrain.__version__, MISSING["random numbers"])
    assert "by another commit, or changed since" in resumed().error
    assert "cannot be resumed with other settings" in call(f"ckpt_path={LAST}", *TINY, "model.width=8").error
