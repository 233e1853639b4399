"""Stopping, resuming, evaluating: a resumed run equals an uninterrupted one bit for bit, through the command line."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from program import TINY, call, configure, load, resume, train
from sameness import LAST, assert_equal, losses, state

from spectrain.cli.train import resume_command
from spectrain.cli.train import train as run
from spectrain.lightning import GracefulInterrupt, MetricsCSV

STEPS = ("trainer.max_steps=12", "trainer.val_check_interval=4", "spectrum.every_n_steps=5")


def interrupt_at(
    monkeypatch: pytest.MonkeyPatch, step: int, signal_number: int = signal.SIGINT, times: int = 1, skip: int = 0
) -> None:
    """Somebody presses Ctrl-C during the step after `step`, once, in the first run or after `skip` of them."""
    working, pressed = GracefulInterrupt.on_train_batch_end, []

    def on_train_batch_end(self: GracefulInterrupt, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == step and len(pressed) <= skip:
            pressed.append(1)
            for _ in range(times if len(pressed) > skip else 0):
                signal.raise_signal(signal_number)
        working(self, trainer, *args)

    monkeypatch.setattr(GracefulInterrupt, "on_train_batch_end", on_train_batch_end)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("data.batch_size=50", "optimizer=muon", "data.holdout=true"),
        ("optimizer=adam", "preconditioner=none", "schedule=constant"),
        ("optimizer=gauss_newton", "preconditioner=none", "optimizer.momentum=0.3", "data.batch_size=50"),
        ("optimizer=sgd", "optimizer.lr=30", "preconditioner=auto", "guard=true", "spectrum.refresh=drift"),
        ("preconditioner=batch", "preconditioner.layers=null", "preconditioner.landmarks=16", "data.batch_size=50"),
        pytest.param(("optimizer=esgd", "optimizer.every_n_steps=3"), marks=pytest.mark.slow),
        pytest.param(("preconditioner=batch",), marks=pytest.mark.slow),
        pytest.param(("optimizer=sgd", "data.batch_size=50", "model=siren"), marks=pytest.mark.slow),
        pytest.param(
            ("optimizer=adamw", "trainer.accumulate_grad_batches=2", "data.batch_size=20"), marks=pytest.mark.slow
        ),
    ],
    ids=lambda words: " ".join(words) or "soap",
)
def test_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    train(tmp_path / "whole", *STEPS, *overrides)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5)
        outcome = call(*TINY, *STEPS, *overrides, "paths.run_dir=part")
    assert outcome.code == 130
    assert load(tmp_path / "part" / LAST)["global_step"] == 5
    torch.manual_seed(123)
    np.random.seed(9)
    command = outcome.out.splitlines()[-1].split()
    assert command == ["spectrain-train", "ckpt_path=part/checkpoints/last.ckpt"]
    outcome = call(*command[1:])
    assert outcome.code == 0, outcome.err
    assert_equal(state(tmp_path / "whole"), state(tmp_path / "part"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "part")
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "part")]
    exact = ("psnr", "ssim", "mse", "best_psnr", "steps", "refreshes", "condition_before", "loss")
    assert [summaries[0][key] for key in exact] == [summaries[1][key] for key in exact]


def test_an_interrupted_run_has_a_summary_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(monkeypatch, 5)
    outcome = call(*TINY, *STEPS, "paths.run_dir=r", "figures=true", "baseline=true")
    assert outcome.code == 130 and outcome.err == ""
    assert "Stopped at step 5 of 12" in outcome.out
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["steps"] == 5
    assert (tmp_path / "r" / "figures" / "psnr.png").exists()
    assert not (tmp_path / "r" / "baseline").exists()


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(monkeypatch, 5, times=2)
    outcome = call(*TINY, *STEPS, "paths.run_dir=r")
    assert outcome.code == 130
    assert load(tmp_path / "r" / LAST)["global_step"] == 4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_cluster_that_wants_its_machine_back_gets_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """The same command then goes on, and equals an uninterrupted run."""
    often = ("trainer.log_every_n_steps=3",)
    words = (*TINY, *STEPS, *often, "paths.run_dir=r", "resume=true")
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5, number, times=2)
        assert call(*words).code == code
    assert signal.getsignal(number) is before
    assert load(tmp_path / "r" / LAST)["global_step"] == 5
    assert call(*words).code == 0
    train(tmp_path / "whole", *STEPS, *often)
    assert_equal(state(tmp_path / "whole"), state(tmp_path / "r"))
    stop = losses(tmp_path / "r").pop(1)  # what was not logged yet when it stopped
    assert [row for row in losses(tmp_path / "r") if row != stop] == losses(tmp_path / "whole") and stop[0] == "4"


def test_resume_starts_again_where_there_is_no_checkpoint_yet(tmp_path: Path) -> None:
    train(tmp_path / "r")
    (tmp_path / "r" / LAST).unlink()
    assert call(*TINY, "paths.run_dir=r", "resume=true").code == 0
    assert load(tmp_path / "r" / LAST)["global_step"] == 6
    assert len(losses(tmp_path / "r")) == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("resume=true",), "give paths.run_dir=runs/NAME"),
        (("resume=true", "paths.run_dir=r", "ckpt_path=a"), "leave either it or ckpt_path out"),
        (("resume=maybe",), "it must be true or false"),
        (("resume=true", "paths.run_dir=somebody"), "nothing is written over"),
    ],
)
def test_what_cannot_be_gone_on_with(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody" / "thesis.tex").write_text("")
    assert message in call(*TINY, *words).error


def test_a_baseline_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*TINY, *STEPS, "paths.run_dir=r", "resume=true", "baseline=true")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5, signal.SIGUSR1, skip=1)
        assert call(*words).code == 138
    assert load(tmp_path / "r" / "baseline" / LAST)["global_step"] == 5
    assert call(*words).code == 0
    gain = train(tmp_path / "whole", *STEPS, "baseline=true")["gain_db"]
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["gain_db"] == gain


def test_more_steps_go_on_from_a_finished_run(tmp_path: Path) -> None:
    first = train(tmp_path / "r", "schedule=constant", "trainer.max_steps=6")
    summary = resume(tmp_path / "r" / LAST, "trainer.max_steps=9")
    assert summary["steps"] == 9 and summary["psnr"] != first["psnr"]
    assert [int(step) for step, _ in losses(tmp_path / "r")] == list(range(9))
    assert train(tmp_path / "whole", "schedule=constant", "trainer.max_steps=9")["psnr"] == summary["psnr"]


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    first = train(tmp_path / "r", "figures=true")
    again = resume(tmp_path / "r" / LAST)
    assert (again["psnr"], again["steps"], again["refreshes"]) == (first["psnr"], 6, first["refreshes"])
    assert len(losses(tmp_path / "r")) == 6


def test_a_run_folder_that_was_moved_resumes_where_it_lies(tmp_path: Path) -> None:
    train(tmp_path / "r", "trainer.max_steps=4")
    shutil.move(tmp_path / "r", tmp_path / "moved")
    assert resume(tmp_path / "moved" / LAST, "trainer.max_steps=6")["steps"] == 6
    assert not (tmp_path / "r").exists()
    assert load(tmp_path / "moved" / LAST)["global_step"] == 6


def test_resuming_into_another_folder_leaves_the_first_alone(tmp_path: Path) -> None:
    train(tmp_path / "r", "trainer.max_steps=4")
    before = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}
    resume(tmp_path / "r" / LAST, "trainer.max_steps=6", f"paths.run_dir={tmp_path}/other")
    assert {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()} == before
    assert load(tmp_path / "other" / LAST)["global_step"] == 6


@pytest.mark.parametrize("name", ["run", "my run", "lr=0.1,b", "it's", "a(b)[c]{d}"])
@pytest.mark.parametrize("by_make", [False, True])
def test_the_resume_command_can_be_typed(
    name: str, by_make: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shell, make's ARGS and Hydra each have their own quotes."""
    cfg = configure(*TINY, "trainer.max_steps=2", "trainer.val_check_interval=2")
    cfg.paths.run_dir = name
    run(cfg)
    monkeypatch.setattr(sys, "argv", ["spectrain-train"])
    if by_make:
        monkeypatch.setenv("SPECTRAIN_ARGS", "")
    words = shlex.split(resume_command(Path(name)))
    if by_make:
        assert words[:2] == ["make", "train"] and words[2].startswith("ARGS=")
        words = ["make", *shlex.split(words[2].removeprefix("ARGS="))]
    outcome = call(*words[1:])
    assert outcome.code == 0, outcome.err


@pytest.mark.slow
def test_ctrl_c_on_a_real_process(tmp_path: Path) -> None:
    """SIGINT once training has begun: 130, last.ckpt, and a printed command that finishes the same run."""
    words = [w for w in TINY if not w.startswith(("trainer.max_steps", "trainer.val", "trainer.log"))]
    words += [
        "trainer.max_steps=200",
        "trainer.val_check_interval=70",
        "trainer.log_every_n_steps=50",
        "optimizer=adam",
        "spectrum.every_n_steps=60",
    ]
    script = Path(__file__).parents[2] / "scripts" / "train.py"
    environment = {k: v for k, v in os.environ.items() if k != "SPECTRAIN_ARGS"} | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(script), *words, "paths.run_dir=part"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    head = ""
    while "step     20" not in head:
        line = process.stdout.readline()
        assert line, process.communicate()
        head += line
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    stopped = load(tmp_path / "part" / LAST)["global_step"]
    assert 20 <= stopped < 200
    command = shlex.split(out.splitlines()[-1])
    assert command[0] == "python"
    finished = call(*command[2:])
    assert finished.code == 0, finished.err
    train(tmp_path / "whole", *words)
    whole, part = (load(tmp_path / name / LAST) for name in ("whole", "part"))
    for key in ("state_dict", "optimizer_states", "preconditioner", "global_step"):
        assert_equal(whole[key], part[key], key)


def test_evaluate_at_the_trained_size_and_another(tmp_path: Path) -> None:
    summary = train(tmp_path / "r", "data.holdout=true")
    outcome = call(f"ckpt_path=r/{LAST}", program="evaluate")
    assert outcome.code == 0, outcome.err
    metrics = json.loads((tmp_path / "r" / "evaluation" / "metrics.json").read_text())
    assert {key: pytest.approx(summary[key], rel=1e-5) for key in metrics} == metrics
    assert set(metrics) == {"mse", "psnr", "ssim", "psnr_heldout"}
    outcome = call(f"ckpt_path=r/{LAST}", "size=37", "output_dir=large", program="evaluate")
    assert outcome.code == 0 and "37 x 37" in outcome.out
    assert Image.open(tmp_path / "large" / "reconstruction.png").size == (37, 37)
    assert {path.name for path in (tmp_path / "large").iterdir()} == {
        "metrics.json", "reconstruction.png", "comparison.png", "comparison.pdf", "comparison.npz",
    }  # fmt: skip


def test_a_resumed_wandb_run_keeps_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        assert call(*TINY, "logger=wandb", "paths.run_dir=r").code == 130
    run_id = (tmp_path / "r" / "wandb_id.txt").read_text()
    time.sleep(1.1)  # offline folders are named by the second
    assert call(f"ckpt_path=r/{LAST}").code == 0
    assert (tmp_path / "r" / "wandb_id.txt").read_text() == run_id
    folders = list((tmp_path / "r" / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and all(run_id.strip() in folder.name for folder in folders)


def test_metrics_csv_stands_in_a_run_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are on disk while the run goes, not at its end only."""
    seen = []
    working = MetricsCSV.save

    def save(self: MetricsCSV) -> None:
        working(self)
        seen.append(self.path.read_text().count("\n") if self.path.exists() else 0)

    monkeypatch.setattr(MetricsCSV, "save", save)
    train(tmp_path / "r", *STEPS)
    assert seen[-1] > 5


def test_the_baseline_of_a_resumed_run_is_not_made_twice(tmp_path: Path) -> None:
    first = train(tmp_path / "run", "baseline=true")
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "baseline").rglob("*") if p.is_file()}
    again = resume(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert again["gain_db"] == first["gain_db"]
    assert again["baseline_psnr"] == first["baseline_psnr"]
    assert written == {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "baseline").rglob("*") if p.is_file()}
    longer = resume(tmp_path / "run" / "checkpoints" / "last.ckpt", "trainer.max_steps=8")
    assert "gain_db" not in longer  # six steps without cannot be compared with eight
