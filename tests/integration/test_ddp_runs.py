"""Several processes, as a person starts them: one folder, one log, and what is refused."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from program import TINY, call, train

DDP = ("trainer=ddp", "trainer.accelerator=cpu")
# Without SOAP, which makes rounding visible within four steps: docs/distributed.md
EXACT = (
    "optimizer=sgd",
    "optimizer.lr=0.02",
    "trainer.precision=64-true",
    "trainer.max_steps=12",
    "data.batch_size=51",
)
SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-m", "seed=0,1", *DDP), "-m does not go with several devices"),
        ((*DDP, "trainer.strategy=ddp_spawn"), "they train with trainer=ddp"),
        (
            (*DDP, "experiment=pinn_poisson2d", "optimizer=soap", "preconditioner=sample"),
            "acts on an equation's residuals in one process, and there are 2; give trainer.devices=1",
        ),
        ((*DDP, "guard=true"), "guard=true judges steps in one process, and there are 2; give guard=false"),
    ],
)
def test_what_several_processes_cannot_do_is_said_before_they_start(words: tuple[str, ...], message: str) -> None:
    outcome = call(*words, "logger=none")
    assert outcome.code == 2, outcome.err
    assert message in outcome.err
    assert not Path("runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
@pytest.mark.parametrize("way", ["none", "sample", "batch", "parameter", "auto"])
def test_two_processes_leave_what_one_leaves(tmp_path: Path, way: str, launcher: str) -> None:
    start = [sys.executable]
    if launcher == "torchrun":
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = [*TINY, *EXACT, *DDP, f"preconditioner={way}", "logger=wandb", "baseline=true"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*start, str(SCRIPT), *words],
        capture_output=True,
        text=True,
        timeout=120,
        env=one_thread,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert done.stdout.count(f"run folder: {folder.relative_to(tmp_path)}\n") == 1
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 1
    assert {"best.ckpt", "last.ckpt"} == {path.name for path in (folder / "checkpoints").iterdir()}
    assert (folder / "baseline" / "checkpoints" / "last.ckpt").exists() == (way != "none")
    train(tmp_path / "alone", *EXACT, f"preconditioner={way}")
    tolerance = 1e-6 if way != "batch" else 0.1
    for name in ("train/loss", "val/psnr"):
        found, expected = (column(place / "metrics.csv", name) for place in (folder, tmp_path / "alone"))
        assert found == pytest.approx(expected, rel=tolerance), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ("optimizer=gauss_newton", "optimizer.mu=1e-6"),  # with adaptive points
        ("optimizer=adam", "optimizer.lr=0.01"),  # shares of the points
    ],
)
def test_two_processes_solve_an_equation_as_one_does(tmp_path: Path, settings: tuple[str, ...]) -> None:
    words = (
        *("experiment=pinn_burgers", "trainer.max_steps=6", "trainer.val_check_interval=3", "figures=false"),
        *("trainer.log_every_n_steps=1", "logger=none", "data.points=61", "data.boundary_points=13", *settings),
    )
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words, *DDP],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert done.stdout.count("run folder: ") == 1
    train(tmp_path / "alone", *words, "trainer.accelerator=cpu", tiny=())
    for name in ("train/loss", "val/l2_error"):
        found, expected = (column(place / "metrics.csv", name) for place in (folder, tmp_path / "alone"))
        assert len(expected) > 1 and found == pytest.approx(expected, rel=1e-8), name


def column(path: Path, name: str) -> list[float]:
    with path.open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]
