"""Module and callbacks under a real Trainer, on a small picture."""

import csv
import functools
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from spectrain import InputError, SamplePreconditioner, SpectrainWarning, spectral_maps
from spectrain.data import ImageDataModule
from spectrain.lightning import (
    GracefulInterrupt,
    MetricsCSV,
    RandomState,
    RunHistory,
    SpectrumCallback,
    TrainingProgress,
    WideNetworkModule,
)
from spectrain.metrics import ImageMetrics
from spectrain.models import mlp
from spectrain.optim import cosine


class StopAt(pl.Callback):
    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action = step, action

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.action(trainer)


class Run:
    """One small training; `fit` returns self."""

    def __init__(
        self,
        folder: Path,
        *,
        precondition: bool = True,
        batch_size: int | None = None,
        steps: int = 12,
        every: int = 4,
        subset: int = 64,
        optimizer: Any = torch.optim.Adam,
        extra: tuple[pl.Callback, ...] = (),
        network: torch.nn.Module | None = None,
        **trainer: Any,
    ) -> None:
        pl.seed_everything(0, verbose=False)
        self.data = ImageDataModule(size=12, batch_size=batch_size)
        self.network = network or mlp(2, 1, width=32, depth=2)
        S = SamplePreconditioner(spectral_maps.power(0.5)) if precondition else None
        self.module = WideNetworkModule(
            self.network,
            functools.partial(optimizer, lr=0.05),
            schedule=functools.partial(cosine, max_steps=steps),
            preconditioner=S,
            metrics=ImageMetrics(self.data.image),
        )
        self.spectrum = SpectrumCallback(rank=8, subset_size=subset, every_n_steps=every)
        self.history = RunHistory(self.spectrum)
        self.interrupt = GracefulInterrupt()
        self.checkpoint = pl.callbacks.ModelCheckpoint(
            folder / "checkpoints", "best", "val/psnr", mode="max", enable_version_counter=False
        )
        last = pl.callbacks.ModelCheckpoint(folder / "checkpoints", "last", enable_version_counter=False)
        callbacks = [self.history, self.spectrum, RandomState(), self.interrupt, TrainingProgress(live=False), *extra]
        defaults: dict[str, Any] = {
            "max_steps": steps,
            "max_epochs": -1,
            "val_check_interval": 5,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "accelerator": "cpu",
            "default_root_dir": folder,
        }
        folder.mkdir(exist_ok=True)
        self.trainer = pl.Trainer(
            **{**defaults, **trainer}, callbacks=[*callbacks, self.checkpoint, last], logger=MetricsCSV(folder)
        )

    def fit(self, ckpt_path: Path | None = None) -> "Run":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec|.*exists and is not empty|.*many workers")
            self.trainer.fit(self.module, datamodule=self.data, ckpt_path=ckpt_path, weights_only=True)
        return self

    @property
    def weights(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.network.parameters()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("batch_size", [None, 50])
@pytest.mark.parametrize("stop", [3, 5, 7])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, batch_size: int | None, stop: int
) -> None:
    whole = Run(tmp_path / "whole", batch_size=batch_size).fit()

    def press_ctrl_c(_: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    first = Run(tmp_path / "part", batch_size=batch_size, extra=(StopAt(stop, press_ctrl_c),)).fit()
    assert first.trainer.global_step in (stop, stop + 1)
    assert first.interrupt.interrupted
    second = Run(tmp_path / "part", batch_size=batch_size)
    torch.manual_seed(99)  # whatever state the process is in, the checkpoint's random numbers count
    second.fit(tmp_path / "part" / "checkpoints" / "last.ckpt")
    assert equal(whole.weights, second.weights)
    assert whole.history.rows[-1]["psnr"] == second.history.rows[-1]["psnr"]
    assert whole.spectrum.refreshes == second.spectrum.refreshes
    assert torch.equal(whole.spectrum.spectrum.eigenvectors, second.spectrum.spectrum.eigenvectors)


def test_resumed_metrics_csv_keeps_the_earlier_rows(tmp_path: Path) -> None:
    Run(tmp_path / "whole").fit()
    Run(tmp_path / "part", extra=(StopAt(7, lambda t: setattr(t, "should_stop", True)),)).fit()
    Run(tmp_path / "part").fit(tmp_path / "part" / "checkpoints" / "last.ckpt")

    def losses(run: str) -> dict[str, str]:
        rows = list(csv.DictReader((tmp_path / run / "metrics.csv").open()))
        return {row["step"]: row["train/loss"] for row in rows if row["train/loss"]}

    assert losses("part") == losses("whole")
    assert list(losses("whole")) == [str(step) for step in range(12)]


def test_the_last_step_is_validated_and_saved_whatever_the_interval(tmp_path: Path) -> None:
    run = Run(tmp_path, steps=7, val_check_interval=5).fit()
    assert [row["step"] for row in run.history.rows] == [0, 5, 7]
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 7


def test_refreshes_come_when_they_are_due_and_once_per_optimizer_step(tmp_path: Path) -> None:
    seen: list[int] = []

    class Spy(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
            seen.append(run.spectrum.refreshes)

    run = Run(tmp_path, steps=10, every=8, extra=(Spy(),), accumulate_grad_batches=2)
    run.fit()
    assert run.spectrum.refreshes == 3  # steps 0, 5, 8
    assert len(seen) == 20


def test_refresh_leaves_random_numbers_gradients_and_mode_alone(tmp_path: Path) -> None:
    run = Run(tmp_path, steps=1).fit()
    run.network.eval()
    before = torch.get_rng_state(), run.weights, [p.grad for p in run.network.parameters()]
    run.spectrum.refresh(run.trainer, run.module)
    assert torch.equal(before[0], torch.get_rng_state())
    assert equal(before[1], run.weights)
    assert all(p.grad is g for p, g in zip(run.network.parameters(), before[2], strict=True))
    assert not run.network.training


def test_measuring_without_a_preconditioner_does_not_change_training(tmp_path: Path) -> None:
    with_callback = Run(tmp_path / "a", precondition=False).fit()
    without = Run(tmp_path / "b", precondition=False)
    without.spectrum.refresh = lambda *_: 0.0  # type: ignore[method-assign,assignment]
    without.fit()
    assert equal(with_callback.weights, without.weights)
    assert with_callback.spectrum.refresh_seconds == 0


def test_the_logged_loss_is_the_true_loss(tmp_path: Path) -> None:
    run = Run(tmp_path, steps=1)
    x, y = run.data.train_x, run.data.train_y
    expected = float((run.network(x) - y).square().mean().detach())
    run.fit()
    assert float(run.trainer.logged_metrics["train/loss"]) == pytest.approx(expected, rel=1e-6)


def test_a_failed_refresh_keeps_the_last_spectrum_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spectrain.preconditioners import Landmarks

    working, calls = Landmarks.spectrum, []

    def fails_on_the_second(*args: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise torch.linalg.LinAlgError("eigh did not converge")
        return working(*args, **settings)

    monkeypatch.setattr(Landmarks, "spectrum", fails_on_the_second)
    run = Run(tmp_path, steps=10)
    with pytest.warns(SpectrainWarning, match=r"refresh at step 4 failed, the last good spectrum stays.*eigh"):
        run.fit()
    assert run.trainer.global_step == 10
    assert run.module.preconditioner.ready


def test_nan_in_the_loss_stops_with_step_checkpoint_and_advice(tmp_path: Path) -> None:
    run = Run(tmp_path, optimizer=torch.optim.SGD, precondition=False, steps=40)
    run.module._optimizer = functools.partial(torch.optim.SGD, lr=1e30)
    with pytest.raises(InputError, match=r"The loss is (nan|inf) at step \d+.*Last good checkpoint.*optimizer.lr"):
        run.fit()


def test_rank_above_the_landmarks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"spectrum.rank=9 is above spectrum.subset_size=8"):
        SpectrumCallback(rank=9, subset_size=8)


def test_any_module_with_dict_free_batches_trains(tmp_path: Path) -> None:
    network = torch.nn.Sequential(
        torch.nn.Linear(2, 16), torch.nn.PReLU(), torch.nn.LayerNorm(16), torch.nn.Linear(16, 1)
    )
    run = Run(tmp_path, network=network, steps=4).fit()
    assert run.module.preconditioner.ready


def test_dropout_and_batch_norm_train_on_and_have_their_kernel_in_evaluation(tmp_path: Path) -> None:
    layers = (
        torch.nn.Linear(2, 16),
        torch.nn.BatchNorm1d(16),
        torch.nn.Dropout(0.1),
        torch.nn.ReLU(),
        torch.nn.Linear(16, 1),
    )
    network = torch.nn.Sequential(*layers)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpectrainWarning)  # a refresh that fails only warns
        run = Run(tmp_path, network=network, steps=4).fit()
    assert run.module.preconditioner.ready
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_precisions(tmp_path: Path, precision: str) -> None:
    run = Run(tmp_path, steps=4, precision=precision).fit()
    assert run.module.preconditioner.ready
    assert all(torch.isfinite(w).all() for w in run.weights)


def test_clipping_acts(tmp_path: Path) -> None:
    kwargs: dict[str, Any] = {"optimizer": torch.optim.SGD, "steps": 3}
    free = Run(tmp_path / "a", **kwargs).fit()
    clipped = Run(tmp_path / "b", **kwargs, gradient_clip_val=1e-3).fit()
    start = Run(tmp_path / "c", **kwargs).weights
    moved = [
        max(float((a - b).abs().max()) for a, b in zip(run.weights, start, strict=True)) for run in (free, clipped)
    ]
    assert moved[1] < 0.05 * moved[0]


def test_throughput_and_learning_rate_are_logged(tmp_path: Path) -> None:
    Run(tmp_path, steps=10).fit()
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    rates = {int(row["step"]): float(row["time/steps_per_second"]) for row in rows if row["time/steps_per_second"]}
    assert list(rates) == [5, 10]
    assert min(rates.values()) > 0
    assert [row["optimizer/lr"] for row in rows if row["step"] == "0"] == ["0.05000000074505806"]


class InterruptInBatch(pl.Callback):
    """Ctrl-C in the middle of a window of accumulated gradients."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch:
            signal.raise_signal(signal.SIGINT)


def resumed_and_whole(tmp_path: Path, interrupt_at: int, **options: Any) -> tuple[Run, Run]:
    whole = Run(tmp_path / "whole", **options).fit()
    Run(tmp_path / "part", extra=(InterruptInBatch(interrupt_at),), **options).fit()
    return whole, Run(tmp_path / "part", **options).fit(tmp_path / "part" / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("interrupt_at", [6, 7])
@pytest.mark.parametrize("batch_size", [None, 20])
def test_resume_is_exact_with_accumulated_gradients(tmp_path: Path, interrupt_at: int, batch_size: int | None) -> None:
    options = {"accumulate_grad_batches": 2, "val_check_interval": 10, "batch_size": batch_size, "steps": 8}
    whole, resumed = resumed_and_whole(tmp_path, interrupt_at, **options)
    assert equal(whole.weights, resumed.weights)
    assert whole.history.loss == resumed.history.loss


def test_resume_is_exact_in_double_precision(tmp_path: Path) -> None:
    whole, resumed = resumed_and_whole(tmp_path, 5, precision="64-true")
    assert whole.weights[0].dtype == torch.float64
    assert equal(whole.weights, resumed.weights)


def test_the_best_loss_is_the_true_loss_with_accumulated_gradients(tmp_path: Path) -> None:
    run = Run(tmp_path, accumulate_grad_batches=4, val_check_interval=8, steps=2, precondition=False).fit()
    plain = Run(tmp_path / "plain", steps=2, precondition=False).fit()
    assert run.history.best_loss == pytest.approx(plain.history.best_loss, rel=1e-5)


def test_a_part_that_was_frozen_stays_frozen(tmp_path: Path) -> None:
    frozen = torch.nn.BatchNorm1d(16)
    network = torch.nn.Sequential(torch.nn.Linear(2, 16), frozen, torch.nn.ReLU(), torch.nn.Linear(16, 1))
    frozen.eval()
    before = frozen.running_mean.clone()
    Run(tmp_path, network=network, steps=4).fit()
    assert not frozen.training
    assert torch.equal(frozen.running_mean, before)


def test_a_diverged_state_is_not_saved_as_a_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, steps=12)
    working = run.module.metrics.compute

    def diverges_later() -> dict[str, Tensor]:
        values = working()
        return {name: value * float("nan") for name, value in values.items()} if run.trainer.global_step > 5 else values

    monkeypatch.setattr(run.module.metrics, "compute", diverges_later)
    with pytest.raises(InputError, match=r"The loss is nan at step 10.*last.ckpt"):
        run.fit()
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 5


def test_a_first_refresh_that_fails_is_an_error_and_later_ones_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spectrain.preconditioners import Landmarks

    working, good = Landmarks.spectrum, [0]

    def fails(*args: Any, **settings: Any) -> Any:
        good[0] -= 1
        if good[0] < 0:
            raise torch.linalg.LinAlgError("no")
        return working(*args, **settings)

    monkeypatch.setattr(Landmarks, "spectrum", fails)
    with pytest.raises(InputError, match="step 0 failed, and there is none to go on with"):
        Run(tmp_path / "a").fit()
    good[0] = 1
    run = Run(tmp_path / "b", steps=9)
    with pytest.warns(SpectrainWarning, match="the last good spectrum stays"):
        run.fit()
    assert (run.spectrum.refreshes, run.spectrum.failed_refreshes) == (1, 2)  # at 0 and at 4, 8


def test_the_last_checkpoint_is_written_also_when_it_is_not_the_best(tmp_path: Path) -> None:
    run = Run(tmp_path, optimizer=torch.optim.SGD, steps=12)
    values = iter([30.0, 20.0, 10.0, 5.0])
    working = run.module.metrics.compute
    run.module.metrics.compute = lambda: {**working(), "psnr": torch.tensor(next(values, 1.0))}  # type: ignore[method-assign]
    run.fit()
    steps = [
        torch.load(tmp_path / "checkpoints" / f"{n}.ckpt", weights_only=True)["global_step"] for n in ("best", "last")
    ]
    assert steps[0] < 12
    assert steps[1] == 12
