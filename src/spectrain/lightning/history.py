"""What a run did over its steps: quality, time, and the residual's energy per band of eigenmodes.

Shapes: n training points, C outputs, k modes, B bands.
"""

import csv
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from spectrain.lightning.spectrum_callback import SpectrumCallback
from spectrain.lightning.tracking import log_scalars
from spectrain.metrics import BandEnergy, FieldMetrics
from spectrain.preconditioners import evaluating


class RunHistory(pl.Callback):
    """Keeps one row per validation, in memory and in the checkpoint, for the figures and the summary.

    The clock counts training and refreshes. It stands still from a validation's start to the next step, so that two
    runs compare whatever they measure and save. This callback stands before SpectrumCallback, to charge its refreshes.
    Band energies are those of the data's `residual` on the training points, in the basis of the run's first spectrum.
    """

    def __init__(self, spectrum: SpectrumCallback) -> None:
        self._spectrum = spectrum
        self.clock = spectrum.clock  # its refreshes keep to a share of this time
        self.rows: list[dict[str, float]] = []
        self.edges: list[int] = []
        self.loss, self.best_loss = float("nan"), float("inf")
        self.energy: Tensor | None = None  # of the last row's residual, per mode

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock, unless it runs."""
        self.clock.start()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """The row of step 0: the weights are still the initial ones here, and the first spectrum is known."""
        if self.rows or trainer.global_step > 0:
            return
        self.clock.stop()
        predict_all(pl_module, trainer.datamodule)  # type: ignore[attr-defined]
        self.record(trainer, pl_module)
        self.clock.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop "early" after the last step: Lightning then validates and saves, whatever val_check_interval is."""
        self.loss = float(outputs["loss"]) * trainer.accumulate_grad_batches  # Lightning has divided it
        self.best_loss = min(self.best_loss, self.loss)
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self.clock.stop()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a row."""
        self.record(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self.clock.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stop the clock."""
        self.clock.stop()

    def record(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One row: step, seconds, cpu_seconds, the validation's metrics, ``band_j`` energies; and the throughput."""
        metrics = {name: float(value) for name, value in _metrics(pl_module).compute().items()}
        row = {"step": trainer.global_step, "seconds": self.clock.seconds, "cpu_seconds": self.clock.cpu_seconds}
        bands = self._bands(trainer, pl_module)
        self.rows.append({**row, **metrics, **bands})
        log_times(trainer, self.rows)
        log_scalars(trainer, {f"spectrum/{name}": energy for name, energy in bands.items()})

    def _bands(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        basis = self._spectrum.initial
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if basis is None:
            return {}
        self.edges = band_edges(basis.rank)
        output: Tensor = _metrics(pl_module).predictions()[data.train_rows.to(pl_module.device)]
        residual: Tensor = data.residual(output)
        energies = BandEnergy(basis, residual.shape[1], self.edges, sync_on_compute=False)  # every rank has all points
        energies.update(residual.to(basis.eigenvectors), torch.arange(basis.n))
        self.energy = energies.projected.square().sum(1) / basis.n
        return {name: float(energy) for name, energy in energies.compute().items()}

    def column(self, name: str) -> Tensor:
        """One value per row, nan where a row lacks it."""
        return torch.tensor([row.get(name, float("nan")) for row in self.rows], dtype=torch.float64)

    @property
    def names(self) -> list[str]:
        """Of all columns, in the order in which they first appeared."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def columns(self) -> dict[str, np.ndarray]:
        """All columns as arrays, by name."""
        return {name: self.column(name).numpy() for name in self.names}

    def write(self, path: Path) -> None:
        """The rows as a CSV file: what a comparison of runs reads."""
        columns = self.names
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """Primitives only."""
        return {
            "rows": self.rows,
            "seconds": self.clock.seconds,
            "cpu_seconds": self.clock.cpu_seconds,
            "edges": self.edges,
            "loss": self.loss,
            "best_loss": self.best_loss,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from an earlier part of the run."""
        self.rows, self.edges = list(state_dict["rows"]), list(state_dict["edges"])
        self.loss, self.best_loss = state_dict["loss"], state_dict["best_loss"]
        self.clock.seconds, self.clock.cpu_seconds = state_dict["seconds"], state_dict["cpu_seconds"]


@torch.no_grad()
def predict_all(pl_module: pl.LightningModule, data: Any) -> None:
    """Fill the module's metrics with the predictions of the whole validation set at the present weights."""
    _metrics(pl_module).reset()
    with evaluating(pl_module):
        for x, *_ in data.val_dataloader():
            _metrics(pl_module).update(pl_module(x.to(pl_module.device, pl_module.dtype)))


def log_times(trainer: pl.Trainer, rows: list[dict[str, float]]) -> None:
    """Seconds up to the last row, and the throughput since the one before."""
    last, before = rows[-1], rows[-2] if len(rows) > 1 else rows[-1]
    values = {f"time/{name}": last[name] for name in ("seconds", "cpu_seconds")}
    if last["seconds"] > before["seconds"]:
        values["time/steps_per_second"] = (last["step"] - before["step"]) / (last["seconds"] - before["seconds"])
    log_scalars(trainer, values)


def _metrics(pl_module: pl.LightningModule) -> FieldMetrics:
    return cast(FieldMetrics, pl_module.metrics)


def band_edges(rank: int) -> list[int]:
    """0, 1, 4, 16, 64, ..., rank: bands wide enough to read in one figure."""
    edges = [0, 1]
    while edges[-1] < rank:
        edges.append(min(rank, 4 * edges[-1]))
    return edges[: edges.index(rank) + 1]
