"""Runs on an equation whose points or weights follow the network: what is measured stays comparable."""

from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from spectrain.lightning import PDEDataModule, PhysicsHistory, PhysicsModule
from spectrain.lightning.physics_report import modes_left
from spectrain.models import mlp
from spectrain.optim import GaussNewton, cosine
from spectrain.pde import Residuals
from spectrain.pde.equations import Poisson
from spectrain.spectrum.mode_table import mode_energies


class First(pl.Callback):
    """What step 0 trains on."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, PhysicsModule)
        self.points, self.weights = pl_module.residuals(0).points, dict(pl_module.problem.weights)


def moving(**options: object) -> tuple[PhysicsModule, PDEDataModule]:
    """A small run whose points follow the residual and whose weights follow the kernel."""
    torch.manual_seed(0)
    data = PDEDataModule(Poisson(dim=2), points=30, boundary_points=8, resolution=9, adaptive=True, **options)  # type: ignore[arg-type]
    network = mlp(2, 1, width=6, depth=1, activation="tanh", parameterization="standard").double()
    return PhysicsModule(network, data, lambda p: GaussNewton(p, mu=1e-6), every_n_steps=2), data


def fit(folder: Path, module: PhysicsModule, data: PDEDataModule, *callbacks: pl.Callback) -> None:
    pl.Trainer(
        max_steps=5,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    ).fit(module, data)


def test_modes_and_spectra_are_of_the_points_and_weights_of_step_0(tmp_path: Path) -> None:
    module, data = moving(weights="trace")
    first, history = First(), PhysicsHistory()
    fit(tmp_path, module, data, history, first)
    assert module.problem.weights != first.weights  # they have moved
    assert not torch.equal(module.residuals(0).points["interior"].x, first.points["interior"].x)
    expected = Residuals(module.problem, first.points, first.weights)
    assert history.initial is not None
    energy = modes_left(module, history.initial)["energy"]
    assert energy == pytest.approx(mode_energies(history.initial, expected().detach()).tolist(), rel=1e-12)
    trace = float(expected.explicit().gram().trace()) / len(expected())
    assert module.spectrum().trace == pytest.approx(trace, rel=1e-10)


def test_they_are_kept_without_a_history_and_restored(tmp_path: Path) -> None:
    module, data = moving(weights="trace")
    first = First()
    fit(tmp_path, module, data, first)
    assert torch.equal(module.first_residuals().points["interior"].x, first.points["interior"].x)
    checkpoint: dict[str, object] = {}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "first.ckpt")
    other, _ = moving(weights="trace", seed=1)
    other.load_state_dict(module.state_dict())
    other.on_load_checkpoint(torch.load(tmp_path / "first.ckpt", weights_only=True))
    assert torch.equal(other.first_residuals()(), module.first_residuals()())


@pytest.mark.parametrize("weights", ["trace", {"boundary": 5.0}])
def test_measured_losses_do_not_follow_weights_by_trace(weights: str | dict[str, float]) -> None:
    module, data = moving(weights=weights)
    given = data.problem(module.network).weights
    assert given["boundary"] == (1.0 if weights == "trace" else 5.0)
    assert (module.problem.weights == given) == (weights != "trace")
    module.measure(3)
    for name, fresh in (("fresh_loss", True), ("point_loss", False)):
        points = module.residuals(3, fresh=fresh).points
        expected = float(Residuals(module.problem, points, given).loss().detach())
        assert module.measured[name] == pytest.approx(expected, rel=1e-12)
    before = module.measured
    module.problem.weights = {name: 7 * weight for name, weight in module.problem.weights.items()}
    module.measure(3)
    assert module.measured == before


@pytest.mark.parametrize("period", [1, None])
def test_steps_are_shorter_in_the_end_where_points_are_fresh(tmp_path: Path, period: int | None) -> None:
    torch.manual_seed(0)
    data = PDEDataModule(Poisson(dim=2), points=30, boundary_points=8, resolution=9, resample_every_n_steps=period)
    network = mlp(2, 1, width=6, depth=1, activation="tanh", parameterization="standard").double()
    schedule = partial(cosine, max_steps=5)
    module = PhysicsModule(network, data, lambda p: GaussNewton(p, mu=1e-6), schedule=schedule)
    fit(tmp_path, module, data)
    lr = module.trainer.optimizers[0].param_groups[0]["lr"]
    assert lr == pytest.approx(1.0 if period is None else 0.0, abs=1e-12)
