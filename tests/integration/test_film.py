"""A folder of pictures through the program: as a film, and as classes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from program import call, train

TINY = (
    "model.width=16",
    "spectrum.rank=8",
    "spectrum.subset_size=40",
    "spectrum.every_n_steps=2",
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
    "trainer.accelerator=cpu",
    "logger=none",
)


def save(path: Path, value: float, side: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.add.outer(np.arange(side), np.arange(side)) * 8 + value
    Image.fromarray(ramp.astype(np.uint8)).save(path)


def test_a_film_is_trained_on_and_evaluated(tmp_path: Path) -> None:
    for k in range(5):
        save(tmp_path / "film" / f"{k}.png", 10 * k)
    words = ("data=frames", f"data.path={tmp_path}/film", "data.size=8", "data.batch_size=64", "data.holdout=true")
    summary = train(tmp_path / "run", "baseline=true", "figures=true", tiny=(*words, *TINY))
    assert {"psnr", "ssim", "psnr_heldout", "gain_db"} <= set(summary) and summary["refreshes"] == 2
    drawn = {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")}
    assert drawn == {"frames", "psnr", "spectrum", "band_energy"}
    outcome = call(f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt", "size=16", program="evaluate")
    assert outcome.code == 0 and "in 5 frames of 16 x 16 pixels" in outcome.out, outcome.err
    assert "psnr" in json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text())
    assert (tmp_path / "run" / "evaluation" / "reconstruction.gif").exists()


@pytest.mark.slow
def test_sub_folders_are_classes(tmp_path: Path) -> None:
    for name, value in (("day", 100), ("night", 0)):
        for k in range(10):
            save(tmp_path / "photos" / name / f"{k}.png", value + k)
    words = ("experiment=digits", f"data.path={tmp_path}/photos", "spectrum.subset_size=10", "spectrum.rank=4")
    summary = train(tmp_path / "run", "trainer.max_steps=30", tiny=(*TINY, *words))
    assert summary["accuracy"] == 1 and summary["kernel_test"] == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["data=frames", "data.path=gone"], ["data.path=gone does not exist", "folder of pictures"]),
        (["data=frames", "data.frames=0"], ["data.frames=0", "at least 1"]),
        (["data=frames", "data.path=film"], ["film/b.png has 9x9 pixels", "a.png 8x8"]),
        (["data.path=film"], ["data.path=film is a directory", "data=frames", "-m data.path=film/a.png,film/b.png"]),
        (["data=frames", "preconditioner=grid"], ["preconditioner=grid", "preconditioner=sample"]),
        (["experiment=digits", "data.path=film"], ["data.path=film has 0 sub-folders"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_refused_with_one_sentence(given: list[str], said: list[str]) -> None:
    save(Path("film/a.png"), 0)
    save(Path("film/b.png"), 0, 9)
    more = ["data.size=null"] if "data.path=film" in given and "data=frames" in given else []
    error = call("logger=none", *given, *more).error
    assert all(part in error for part in said), error
    assert not Path("runs").exists()
