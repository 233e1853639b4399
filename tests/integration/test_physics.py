"""A run on an equation, through the command line: what it leaves, how it resumes, what it refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from program import call, load, resume, train

from spectrain.lightning import PhysicsModule

TINY = (
    "experiment=pinn_poisson2d",
    "data.points=60",
    "data.boundary_points=20",
    "data.resolution=15",
    "model.width=8",
    "data.damping=1e-6",
    "trainer.max_steps=6",
    "trainer.val_check_interval=3",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    "logger=none",
)
QUICK = (*TINY, "figures=false")


def test_a_run_leaves_summary_field_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = train(tmp_path / "run", tiny=TINY)
    assert summary["steps"] == 6 and summary["parameters"] == 33 and summary["factored_kernel"]
    assert summary["l2_error"] < 0.9 and summary["h1_error"] < 0.9
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    with np.load(tmp_path / "run" / "field.npz") as field:
        assert field["solution"].shape == (15, 15, 1)
        gap = np.linalg.norm(field["solution"] - field["reference"]) / np.linalg.norm(field["reference"])
    assert gap == pytest.approx(summary["l2_error"], rel=1e-6)
    assert (tmp_path / "run" / "field.vtk").read_text().startswith("# vtk DataFile")
    for name in ("solution", "convergence", "spectrum"):
        assert (tmp_path / "run" / "figures" / f"{name}.png").exists()
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"train/loss", "val/l2_error", "val/fresh_loss"} <= rows[-1].keys()
    assert "relative L2" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["heat", "heat4d", "taylor_green"])  # a curve, a line of four dimensions, a map
def test_what_changes_in_time_is_animated(tmp_path: Path, experiment: str) -> None:
    train(tmp_path / "run", f"experiment=pinn_{experiment}", "trainer.max_steps=1", tiny=TINY[1:])
    assert (tmp_path / "run" / "figures" / "solution.gif").read_bytes().startswith(b"GIF89a")


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(("data.resample_every_n_steps=2",), marks=pytest.mark.slow),
        ("data.resample_every_n_steps=2", "optimizer.momentum=0.5", "data.weights=trace", "spectrum.every_n_steps=2"),
        pytest.param(("data.resample_every_n_steps=1", "data.adaptive=true"), marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, more: tuple[str, ...]) -> None:
    more = (*more, "schedule=constant")  # a cosine would end with the first part
    train(tmp_path / "whole", *more, tiny=QUICK)
    train(tmp_path / "parts", "trainer.max_steps=3", *more, tiny=QUICK)
    resume(tmp_path / "parts" / "checkpoints" / "last.ckpt", "trainer.max_steps=6")
    whole, parts = (load(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "parts"))
    assert whole["global_step"] == parts["global_step"] == 6
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][name]), name
    whole_modes, parts_modes = ((tmp_path / name / "modes.csv").read_text() for name in ("whole", "parts"))
    assert whole_modes == parts_modes


def test_the_cheap_form_and_an_unknown_coefficient(tmp_path: Path) -> None:
    summary = train(
        tmp_path / "run",
        "experiment=pinn_heat_inverse",
        "optimizer=soap",
        "optimizer.lr=0.01",
        "preconditioner=sample",
        "spectrum.every_n_steps=2",
        "data.resample_every_n_steps=2",
        tiny=(*QUICK[1:5], *QUICK[6:]),
    )
    assert summary["refreshes"] == 3
    assert summary["kappa"] != 1.0 and summary["kappa_error"] > 0


def test_fixed_points_that_are_overfitted_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="fits its points"):
        train(
            tmp_path / "run",
            "data.points=4",
            "data.boundary_points=2",
            "data.resample_every_n_steps=null",
            "model.width=30",
            "trainer.max_steps=8",
            "trainer.val_check_interval=8",
            tiny=QUICK,
        )


REFUSED = {
    "preconditioner=none": ("preconditioner=sample",),
    "a multiple of 20": (
        "optimizer=soap",
        "optimizer.lr=0.01",
        "preconditioner=sample",
        "data.resample_every_n_steps=3",
    ),
    "BatchPreconditioner does not act": ("optimizer=soap", "preconditioner=batch"),
    "GridPreconditioner does not act": ("optimizer=soap", "preconditioner=grid"),
    "AutoPreconditioner does not act": ("optimizer=soap", "preconditioner=auto"),
    "spectral_map=auto does not know": ("optimizer=soap", "preconditioner=sample", "spectral_map=auto"),
    "optimizer.lr=auto does not know": ("optimizer=sgd", "optimizer.lr=auto"),
    "leave it out with ~optimizer.NAME": ("optimizer=adam", "+optimizer.mu=1e-6"),
    "tanh, sine or gelu": ("model.activation=relu",),
    "no condition 'edge'": ("+data.weights.edge=1",),
    "data.weights={'boundary': 0} cannot be used": ("+data.weights.boundary=0",),
    "data.points": ("data.points=0",),
    "or give the equation a method hard()": ("data.hard=true", "+data.equation.solution=cosines"),
    "Set it to 1": ("data.adaptive=true", "data.resample_every_n_steps=3"),
    "such as {boundary:10}, or trace": ("data.weights=kernel",),
    "optimizer.mu": ("optimizer.mu=0",),
    "solution sines or cosines": ("+data.equation.solution=waves",),
}


SLOW = (  # refused by the classes
    "data.points",
    "Set it to 1",
    "such as {boundary:10}, or trace",
    "no condition 'edge'",
    "optimizer.mu",
    "solution sines or cosines",
)


@pytest.mark.parametrize("message", [pytest.param(m, marks=[pytest.mark.slow] if m in SLOW else []) for m in REFUSED])
def test_bad_settings_are_one_sentence(message: str, tmp_path: Path) -> None:
    outcome = call(*QUICK, f"paths.run_dir={tmp_path / 'run'}", *REFUSED[message])
    assert message in outcome.error
    assert not (tmp_path / "run").exists()


def test_pictures_alone_are_evaluated(tmp_path: Path) -> None:
    train(tmp_path / "run", "trainer.max_steps=1", tiny=QUICK)
    outcome = call(f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt", program="evaluate")
    assert "field.npz" in outcome.error


def test_the_module_measures_on_points_that_nobody_trains_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    measure = PhysicsModule.measure

    def spy(self: PhysicsModule, step: int) -> None:
        trained, fresh = (self.residuals(step, fresh=f).points["interior"].x for f in (False, True))
        seen.append((trained, fresh))
        measure(self, step)

    monkeypatch.setattr(PhysicsModule, "measure", spy)
    train(tmp_path / "run", tiny=QUICK)
    first, last = seen[0], seen[-1]
    assert torch.equal(first[0], last[0])  # fixed points in this experiment
    assert not torch.equal(first[1], last[1])
    assert not torch.isin(last[1], last[0]).any()
