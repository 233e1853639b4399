"""readout=solved under a real Trainer: training sees nothing of it, what is evaluated and saved does."""

import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.unit.lightning.test_training import Run, StopAt, equal

from spectrain import InputError
from spectrain.cli.overrides import composed
from spectrain.cli.train import fit, train
from spectrain.lightning import RunHistory, SolvedReadout
from spectrain.optim import solve_readout

SMALL = (
    "data.size=12",
    "model.width=16",
    "trainer.max_steps=6",
    "trainer.val_check_interval=3",
    "spectrum.subset_size=64",
    "spectrum.rank=8",
    "logger=none",
    "figures=false",
)


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.values.append(float(outputs["loss"]))


def solved_run(folder: Path, *extra: pl.Callback) -> Run:
    run = Run(folder, extra=extra)
    run.trainer.callbacks.insert(0, SolvedReadout())  # type: ignore[attr-defined]
    return run


def test_training_sees_nothing_of_it_and_the_evaluation_does(tmp_path: Path) -> None:
    plain, seen = Losses(), Losses()
    trained = Run(tmp_path / "trained", extra=(plain,)).fit()
    solved = solved_run(tmp_path / "solved", seen).fit()
    assert plain.values == seen.values
    first, last = ([row["psnr"] for row in run.history.rows] for run in (trained, solved))
    assert first[0] == last[0]  # of step 0, before any validation
    assert all(b > a + 0.5 for a, b in zip(first[1:], last[1:], strict=True))
    # Left in the network is what was evaluated, by hand:
    solve_readout(trained.network, trained.data.train_x, trained.data.train_y)
    assert equal(trained.weights, solved.weights)
    saved = torch.load(tmp_path / "solved" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert equal(solved.weights, [value for name, value in saved.items() if name.startswith("network.")])


@pytest.mark.parametrize("stop", [3, 5, 7])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, stop: int) -> None:
    whole = solved_run(tmp_path / "whole").fit()
    solved_run(tmp_path / "part", StopAt(stop, lambda _: signal.raise_signal(signal.SIGINT))).fit()
    second = solved_run(tmp_path / "part").fit(tmp_path / "part" / "checkpoints" / "last.ckpt")
    assert equal(whole.weights, second.weights)
    assert whole.history.rows[-1]["psnr"] == second.history.rows[-1]["psnr"]


def test_the_program_has_it_before_the_clock_on_both_sides(tmp_path: Path) -> None:
    cfg = composed([*SMALL, "readout=solved"])
    run = fit(cfg, tmp_path / "run")
    kinds = [type(callback) for callback in run.trainer.callbacks]  # type: ignore[attr-defined]
    assert kinds.index(SolvedReadout) < kinds.index(RunHistory)
    summaries = {
        way: train(composed([*SMALL, f"readout={way}", f"paths.run_dir={tmp_path / way}"]))
        for way in ("trained", "solved")
    }
    for key in ("psnr", "baseline_psnr"):
        assert summaries["solved"][key] > summaries["trained"][key] + 0.1, key


@pytest.mark.parametrize(
    "words",
    [
        ["trainer.precision=64-true"],
        ["optimizer=lbfgs"],
        ["optimizer=gauss_newton", "preconditioner=none"],
        ["preconditioner=batch", "data.batch_size=64"],
        ["guard=true", "data.grayscale=false"],
    ],
)
def test_what_it_works_with(words: list[str], tmp_path: Path) -> None:
    values = {
        way: train(composed([*SMALL, *words, "baseline=false", f"readout={way}", f"paths.run_dir={tmp_path / way}"]))
        for way in ("trained", "solved")
    }
    assert values["solved"]["psnr"] > values["trained"]["psnr"] - 0.01


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["readout=solved", "experiment=digits"], "cross-entropy"),
        (["readout=solved", "optimizer=schedule_free", "schedule=constant"], "schedule_free"),
        (["readout=solved", "experiment=pinn_heat"], "equations have none"),
        (["readout=solved", "trainer.precision=bf16-mixed"], "rounds the solution"),
        (["readout=sloved"], "readout='sloved' cannot be used; it must be one of trained, solved"),
    ],
)
def test_what_is_refused(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train(composed([*words, "logger=none", f"paths.run_dir={tmp_path / 'run'}"]))
    assert not (tmp_path / "run").exists()


def test_other_callbacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="EMAWeightAveraging"):
        solved_run(tmp_path / "average", pl.callbacks.EMAWeightAveraging(decay=0.9)).fit()
    with pytest.raises(InputError, match="must stand before RunHistory"):
        Run(tmp_path / "late", extra=(SolvedReadout(),)).fit()
