"""Both sides under a real Trainer: precision, accumulation, clipping, averaging, compiling, searches, resuming."""

import functools
import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import pytorch_optimizer
import torch
from torch import Tensor

from spectrain import ModifiedSpectrumOptimizer, ParameterPreconditioner, SamplePreconditioner, SpectrainWarning
from spectrain.data import ImageDataModule
from spectrain.lightning import RandomState, RunHistory, SpectrumCallback, WideNetworkModule
from spectrain.metrics import ImageMetrics
from spectrain.models import mlp
from spectrain.preconditioners import Preconditioner, parameter_side
from spectrain.spectral_maps import power

SIDES: dict[str, Any] = {"sample": SamplePreconditioner, "parameter": ParameterPreconditioner}
both_sides = pytest.mark.parametrize("side", SIDES)
mostly_parameter = pytest.mark.parametrize("side", [pytest.param("sample", marks=pytest.mark.slow), "parameter"])
ADAM = functools.partial(torch.optim.Adam, lr=0.02)


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.values.append(float(outputs["loss"]))


class Run:
    def __init__(
        self,
        folder: Path,
        side: str = "parameter",
        *,
        optimizer: Any = ADAM,
        batch_size: int | None = None,
        extra: tuple[pl.Callback, ...] = (),
        compiled: bool = False,
        **trainer: Any,
    ) -> None:
        pl.seed_everything(0, verbose=False)
        self.data = ImageDataModule(size=10, batch_size=batch_size)
        self.network = mlp(2, 1, width=24, depth=2)
        self.preconditioner: Preconditioner = SIDES[side](power(0.5))
        self.module = WideNetworkModule(
            torch.compile(self.network, backend="eager") if compiled else self.network,  # type: ignore[arg-type]
            optimizer,
            preconditioner=self.preconditioner,
            metrics=ImageMetrics(self.data.image),
        )
        spectrum, self.losses = SpectrumCallback(rank=8, subset_size=100, every_n_steps=4), Losses()
        self.spectrum = spectrum
        self.checkpoint = pl.callbacks.ModelCheckpoint(folder, "last", enable_version_counter=False)
        settings: dict[str, Any] = {"max_steps": 10, "max_epochs": -1, "val_check_interval": 5, "accelerator": "cpu"}
        settings |= {"check_val_every_n_epoch": None, "num_sanity_val_steps": 0, "enable_model_summary": False}
        callbacks = [RunHistory(spectrum), spectrum, RandomState(), self.losses, *extra, self.checkpoint]
        self.trainer = pl.Trainer(
            **{**settings, "callbacks": callbacks, "logger": False, "enable_progress_bar": False, **trainer}
        )

    def fit(self, ckpt_path: Path | None = None) -> "Run":
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".*LeafSpec|.*exists and is not empty|.*many workers|.*LRScheduler"
            )
            self.trainer.fit(self.module, datamodule=self.data, ckpt_path=ckpt_path, weights_only=True)
        return self

    @property
    def weights(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.network.parameters()]


def learns(run: Run) -> bool:
    losses = torch.tensor(run.losses.values)
    return bool(torch.isfinite(losses).all()) and bool(losses[-1] < 0.9 * losses[0])


@both_sides
@pytest.mark.parametrize("batch_size", [pytest.param(None, marks=pytest.mark.slow), 40])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, side: str, batch_size: int | None) -> None:
    whole = Run(tmp_path / "whole", side, batch_size=batch_size).fit()
    assert learns(whole)
    Run(tmp_path / "part", side, batch_size=batch_size, max_steps=5).fit()
    resumed = Run(tmp_path / "part", side, batch_size=batch_size).fit(tmp_path / "part" / "last.ckpt")
    assert resumed.losses.values == whole.losses.values[5:]
    assert all(map(torch.equal, whole.weights, resumed.weights))


@mostly_parameter
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precisions(tmp_path: Path, side: str, precision: Any) -> None:
    run = Run(tmp_path, side, precision=precision).fit()
    assert learns(run)
    if side == "parameter":
        assert isinstance(run.trainer.optimizers[0], ModifiedSpectrumOptimizer)
        assert run.preconditioner.ready  # type: ignore[attr-defined]


@mostly_parameter
def test_accumulation_over_the_parts_of_a_batch(tmp_path: Path, side: str) -> None:
    run = Run(tmp_path, side, batch_size=25, accumulate_grad_batches=4, val_check_interval=20).fit()
    assert run.trainer.global_step == 10 and len(run.losses.values) == 40
    assert learns(run)


def test_four_parts_accumulated_are_the_whole_batch_on_the_parameter_side(tmp_path: Path) -> None:
    sgd = functools.partial(torch.optim.SGD, lr=0.05)
    whole = Run(tmp_path / "a", optimizer=sgd, precision="64-true").fit()
    parts = Run(tmp_path / "b", optimizer=sgd, precision="64-true", batch_size=25, accumulate_grad_batches=4)
    parts.trainer.val_check_interval = 20
    for a, b in zip(whole.weights, parts.fit().weights, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@mostly_parameter
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping(tmp_path: Path, side: str, algorithm: str) -> None:
    """Before P_u on the parameter side: a step of gradient descent is then no longer than the rate times the limit."""
    moved = []

    class Moved(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
            self.before = torch.cat([p.detach().flatten().clone() for p in module.parameters()])

        def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
            step = torch.cat([p.detach().flatten() for p in module.parameters()]) - self.before
            moved.append(float(step.norm() if algorithm == "norm" else step.abs().max()))

    sgd = functools.partial(torch.optim.SGD, lr=0.1)
    settings = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": algorithm}
    Run(tmp_path, side, optimizer=sgd, extra=(Moved(),), **settings).fit()
    # P_u shrinks the norm; an entry it may enlarge, so clipping by value bounds the sample side alone.
    if algorithm == "norm" or side == "sample":
        assert max(moved) <= 1.001e-4
    assert max(moved) > 1e-5


@mostly_parameter
@pytest.mark.parametrize(
    "averaging",
    [pl.callbacks.EMAWeightAveraging, pytest.param(pl.callbacks.WeightAveraging, marks=pytest.mark.slow)],
)
def test_averaged_weights(tmp_path: Path, side: str, averaging: Any) -> None:
    """The average is beside the training: the losses are those of a run without it."""
    run, plain = Run(tmp_path / "a", side, extra=(averaging(),)).fit(), Run(tmp_path / "b", side).fit()
    assert run.losses.values == plain.losses.values
    assert not any(map(torch.equal, run.weights, plain.weights))  # the averaged ones are left in the network


@mostly_parameter
def test_a_compiled_network(tmp_path: Path, side: str) -> None:
    plain, compiled = Run(tmp_path / "a", side).fit(), Run(tmp_path / "b", side, compiled=True).fit()
    assert compiled.losses.values == pytest.approx(plain.losses.values, rel=1e-4)


@mostly_parameter
@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs(tmp_path: Path, side: str, search: str | None) -> None:
    lbfgs = functools.partial(torch.optim.LBFGS, lr=0.3 if search is None else 1.0, max_iter=3, line_search_fn=search)
    assert learns(Run(tmp_path, side, optimizer=lbfgs).fit())


@mostly_parameter
def test_schedule_free_evaluates_and_saves_the_averaged_weights(tmp_path: Path, side: str) -> None:
    make = functools.partial(pytorch_optimizer.ScheduleFreeAdamW, lr=0.02)
    whole = Run(tmp_path / "whole", side, optimizer=make).fit()
    assert learns(whole)
    saved = torch.load(tmp_path / "whole" / "last.ckpt", weights_only=True)["state_dict"]
    # The two sets are made of each other, forth and back after the checkpoint: up to rounding.
    averaged = [v for name, v in saved.items() if name.startswith("network.")]
    torch.testing.assert_close(averaged, whole.weights, rtol=1e-6, atol=1e-7)
    Run(tmp_path / "part", side, optimizer=make, max_steps=5).fit()
    resumed = Run(tmp_path / "part", side, optimizer=make).fit(tmp_path / "part" / "last.ckpt")
    assert all(map(torch.equal, whole.weights, resumed.weights))


def test_a_pull_back_that_fails_says_so_and_is_made_up_for_at_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With refresh=drift too: the kernel has not moved, but nothing is in use that was made of it."""
    monkeypatch.setattr("spectrain.lightning.spectrum_callback.kernel_change", lambda *_, seed: 9.0 * (seed == 4))
    working, made = parameter_side.pull_back, []

    def fails_at_second(*args: Any) -> Any:
        made.append(1)
        if len(made) == 2:
            raise torch.OutOfMemoryError("no memory")
        return working(*args)

    monkeypatch.setattr(parameter_side, "pull_back", fails_at_second)
    run = Run(tmp_path)
    run.spectrum.policy = "drift"
    with pytest.warns(SpectrainWarning, match="step 4 failed, S is the identity until the next one: .*no memory"):
        run.fit()
    assert (run.spectrum.refreshes, run.spectrum.failed_refreshes, len(made)) == (2, 1, 3)  # at 0, 8; 4
    assert run.preconditioner.ready
