"""Every file of conf/optimizer through the program, on both sides; the parameter side and lr=auto, resumed."""

import csv
import math
from pathlib import Path

import pytest
import torch
from program import call, load, resume, train

from spectrain.errors import SpectrainWarning

# Gauss-Newton takes no preconditioner.
FILES = {path.stem for path in (Path(__file__).parents[2] / "conf" / "optimizer").glob("*.yaml")} - {"gauss_newton"}


QUICK = [("lbfgs", "parameter"), ("schedule_free", "parameter"), ("lion", "sample")]
REST = [(name, side) for name in sorted(FILES) for side in ("sample", "parameter") if (name, side) not in QUICK]


@pytest.mark.parametrize(
    ("optimizer", "side"), [*QUICK, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in REST)]
)
def test_every_optimizer_runs_on_both_sides(tmp_path: Path, optimizer: str, side: str) -> None:
    summary = train(tmp_path / "run", f"optimizer={optimizer}", f"preconditioner={side}")
    assert math.isfinite(summary["psnr"]) and summary["psnr"] > 5


@pytest.mark.parametrize("schedule", ["late_cosine", "warmup_cosine schedule.warmup_steps=2"])
def test_gauss_newton_fits_a_colour_picture(tmp_path: Path, schedule: str) -> None:
    """Three outputs, whose kernel is the full one; a schedule that somebody chose is not left out in silence."""
    words = ("optimizer=gauss_newton", "preconditioner=none", "model=fourier", "data.path=skimage:astronaut")
    with pytest.warns(SpectrainWarning, match="schedule has no effect"):
        assert train(tmp_path / "run", *words, "model.width=64", *f"schedule={schedule}".split())["psnr"] > 100


@pytest.mark.parametrize("more", [[], ["optimizer=sgd", "optimizer.lr=auto", "data.batch_size=50"]])
def test_the_parameter_side_resumes_bit_for_bit(tmp_path: Path, more: list[str]) -> None:
    words = ["preconditioner=parameter", "spectrum.every_n_steps=4", "schedule=constant", *more]
    train(tmp_path / "whole", *words, "trainer.max_steps=12")
    train(tmp_path / "part", *words)
    resume(tmp_path / "part" / "checkpoints" / "last.ckpt", "trainer.max_steps=12")
    whole, part = (load(tmp_path / run / "checkpoints" / "last.ckpt")["state_dict"] for run in ("whole", "part"))
    assert whole and all(torch.equal(value, part[name]) for name, value in whole.items())


def test_an_automatic_rate_is_printed_logged_and_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["optimizer=sgd", "optimizer.lr=auto", "spectrum.every_n_steps=4", "trainer.max_steps=9"]
    summary = train(tmp_path / "run", *words, "schedule=constant")
    assert "optimizer.lr=auto: " in capsys.readouterr().out
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    measured = {int(row["step"]): float(row["optimizer/auto_lr"]) for row in rows if row["optimizer/auto_lr"]}
    used = {int(row["step"]): float(row["optimizer/lr"]) for row in rows if row["optimizer/lr"]}
    assert list(measured) == [0, 4, 8]  # the steps of the refreshes
    rate = 0.0
    for step in range(9):
        rate = measured.get(step, rate)
        assert used[step] == pytest.approx(rate)
    assert summary["psnr"] > 10


@pytest.mark.parametrize("optimizer", ["soap", "lbfgs", "schedule_free"])
def test_an_automatic_rate_is_for_gradient_descent_alone(optimizer: str) -> None:
    assert "give optimizer.lr a number" in call(f"optimizer={optimizer}", "optimizer.lr=auto").error
