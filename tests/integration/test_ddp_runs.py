"""Several processes, as a person starts them: one folder, one log, and what is refused."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from program import TINY, call, load, train
from sameness import assert_equal

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
    start = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2") if launcher == "torchrun" else ()
    done = start_processes(*TINY, *EXACT, *DDP, f"preconditioner={way}", "logger=wandb", "baseline=true", start=start)
    assert "warning" not in done.stderr, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert done.stdout.count(f"run folder: {folder.relative_to(tmp_path)}\n") == 1
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 1
    assert {"best.ckpt", "last.ckpt"} == {path.name for path in (folder / "checkpoints").iterdir()}
    assert (folder / "baseline" / "checkpoints" / "last.ckpt").exists() == (way != "none")
    train(tmp_path / "alone", *EXACT, f"preconditioner={way}")
    for name in ("train/loss", "val/psnr"):
        found, expected = (column(place / "metrics.csv", name) for place in (folder, tmp_path / "alone"))
        assert found == pytest.approx(expected, rel=1e-6), name


@pytest.mark.slow
def test_a_shared_U_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    """In as many processes bit for bit, in one to rounding; and from one in two."""
    words = (*TINY, *EXACT, "preconditioner=parameter", "schedule=constant", "resume=true")
    places = {name: f"paths.run_dir={name}" for name in ("whole", "stopped", "alone")}
    start_processes(*words, *DDP, places["whole"])
    start_processes(*words, *DDP, places["stopped"], "trainer.max_steps=6")
    train(tmp_path / "alone", *words[len(TINY) :], "trainer.max_steps=6")
    shutil.copytree("stopped", "stopped, alone")
    start_processes(*words, *DDP, places["stopped"])
    start_processes(*words, *DDP, places["alone"])
    start_processes(*words, "paths.run_dir='stopped, alone'")
    whole = column(Path("whole/metrics.csv"), "train/loss")
    assert len(whole) == 12
    assert column(Path("stopped/metrics.csv"), "train/loss") == whole
    assert column(Path("alone/metrics.csv"), "train/loss") == pytest.approx(whole, rel=1e-10)
    assert column(Path("stopped, alone/metrics.csv"), "train/loss") == pytest.approx(whole, rel=1e-10)
    one, other = (load(Path(name, "checkpoints/last.ckpt")) for name in ("whole", "stopped"))
    for key in ("state_dict", "optimizer_states", "preconditioner"):
        assert_equal(one[key], other[key], key)


def start_processes(*words: str, start: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *start, str(SCRIPT), *words],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ("optimizer=gauss_newton", "optimizer.mu=1e-6"),  # with adaptive points
        ("optimizer=adam", "optimizer.lr=0.01"),  # shares of the points
        (
            *("optimizer=adam", "optimizer.lr=0.01", "preconditioner=sample", "spectral_map=power"),
            *("data.adaptive=false", "data.resample_every_n_steps=2", "spectrum.every_n_steps=2", "spectrum.rank=24"),
        ),
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
