"""What every data module shares: points for a network to fit, in batches, with the measures that belong to them.

Shapes: N evaluation points, n training points, b points of a batch, d input dims, C outputs, T evaluations of a run.
"""

import warnings
from collections.abc import Callable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.nn import functional

from spectrain import plots
from spectrain.data.batches import Batch, Chunks, EndlessBatches
from spectrain.errors import InputError, SpectrainWarning
from spectrain.metrics import FieldMetrics

Columns = Mapping[str, Float[np.ndarray, " T"]]  # of a run's history, by name
Figures = dict[str, tuple[Callable[..., Any], dict[str, Any]]]  # name -> (drawing function, its arguments)


class FieldDataModule(LightningDataModule):
    """Points x [N, d] with values y [N, C], some of which a network is trained on.

    A kind of data is a subclass that calls `set_points` and says by `metrics` (and, where it has any of its own,
    `figures`, `headline`, `export`) what its runs are judged by and show; nothing else in the program knows what the
    points are. `batch_size`: points in a batch over all ranks together, None for all of them. `seed`: of the epochs'
    permutations. `chunk_size`: points in a validation batch.

    Attributes: `points` [N, d] and `values` [N, C], predicted at every validation; `train_rows` [n], the training
    points' rows among them; `train_x` [n, d]; `train_y` [n, C]; `in_features`; `out_features`; `target_mean` [C], the
    best constant output; `loss`, of (output [b, C], y [b, C]); `grid_shape`, rows and columns of a picture.

    Training batches (x, y, index) come without end (the trainer stops by max_steps), index = row of train_x.
    Validation batches are all points in order; every rank sees all of them.
    A checkpoint stores the number of batches done, so that a resumed run goes on with the batch that was next.

    Raises InputError naming data.batch_size, data.seed or data.chunk_size.
    """

    loss: Callable[[Tensor, Tensor], Tensor] = staticmethod(functional.mse_loss)
    grid_shape: tuple[int, int] | None = None

    def __init__(self, *, batch_size: int | None = None, seed: int = 0, chunk_size: int = 16384) -> None:
        super().__init__()
        self.seed = whole_number("data.seed", seed, least=0)
        self.chunk_size = whole_number("data.chunk_size", chunk_size)
        self.batch_size = None if batch_size is None else whole_number("data.batch_size", batch_size)
        self._moved: tuple[Batch, Batch] | None = None  # the full batch and its copy on the device
        self._origin = (0, 0)  # (batches, optimizer steps) done when the loaded checkpoint was written

    def set_points(
        self,
        points: Float[Tensor, "N d"],
        values: Float[Tensor, "N C"],
        train_rows: Int[Tensor, " n"],
        train_y: Float[Tensor, "n C"] | None = None,
    ) -> None:
        """Take the points; `train_y` where training sees other values than those at `train_rows`."""
        self.points, self.values, self.train_rows = points, values, train_rows
        self.train_x, self.train_y = points[train_rows], values[train_rows] if train_y is None else train_y
        self.in_features, self.out_features = points.shape[1], values.shape[1]
        self.target_mean = self.train_y.mean(0)
        self.batch_size = _clip(self.batch_size, len(self.train_x))

    def metrics(self) -> FieldMetrics:
        """Return new, empty measures of predictions at `points`."""
        raise NotImplementedError

    def residual(self, output: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
        """Return what is left to learn at the training points, up to a factor the loss's gradient: f - y."""
        return output.double() - self.train_y.to(output.device).double()

    def headline(self, runs: Mapping[str, Columns]) -> dict[str, Any]:
        """Return more numbers for the summary, from the histories of the run and of the one without S, if any."""
        return {}

    def figures(self, metrics: FieldMetrics, runs: Mapping[str, Columns]) -> Figures:
        """Return what to draw of the last predictions and of the runs' histories (none in an evaluation)."""
        if not runs:
            return {}
        q = metrics.quality
        arrays = {**stacked(runs, ("step", "seconds", q.name)), "label": q.axis}
        return {q.name: (plots.quality_figure, {"value" if k == q.name else k: v for k, v in arrays.items()})}

    def evaluation(self, size: int | None = None) -> tuple[Float[Tensor, "N d"], FieldMetrics, str]:
        """Return points, their measures and words for them, for a network that has been trained.

        Raises InputError where there is no such thing as another `size`.
        """
        if size is not None:
            raise InputError(f"size={size} is the resolution of a picture, and these data are none; leave it out.")
        return self.points, self.metrics(), f"on {len(self.points)} points"

    def export(self, folder: Path, metrics: FieldMetrics) -> None:
        """Write an evaluation's predictions, as a file of their kind, and its figures."""
        np.savez_compressed(
            folder / "predictions.npz",
            points=self.points.numpy(),
            values=self.values.numpy(),
            predictions=metrics.predictions().numpy(),
        )
        for name, (draw, drawn) in self.figures(metrics, {}).items():
            plots.save_figure(draw(**drawn), folder / name, drawn)

    def train_dataloader(self) -> EndlessBatches:
        """Return the endless training batches, from the batch that is next."""
        shard = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        points = self.batch_size or len(self.train_x)
        if points < shard[1]:
            raise InputError(
                f"data.batch_size={points} is less than the {shard[1]} processes that share a batch; give "
                f"{shard[1]} or more."
            )
        return self._batches(shard)

    def _batches(self, shard: tuple[int, int]) -> EndlessBatches:
        return EndlessBatches(self.train_x, self.train_y, self.batch_size, self.seed, self.batches_done, shard)

    def val_dataloader(self) -> Chunks:
        """Return all points, those that are not trained on included, in order."""
        return Chunks(self.points, self.values, self.chunk_size)

    test_dataloader = predict_dataloader = val_dataloader

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch to the device; the full batch only once."""
        if self.batch_size is not None or not self._training:
            return cast(Batch, super().transfer_batch_to_device(batch, device, dataloader_idx))
        if self._moved is None or self._moved[0] is not batch or self._moved[1][0].device != device:
            self._moved = (batch, cast(Batch, super().transfer_batch_to_device(batch, device, dataloader_idx)))
        return self._moved[1]

    @property
    def _training(self) -> bool:
        return self.trainer is not None and bool(self.trainer.training)

    def batches_done(self) -> int:
        """Return how many global batches the completed optimizer steps have used."""
        batches, steps = self._origin
        if self.trainer is None:
            return batches
        if self.trainer.global_step < steps:  # another trainer, which starts from nothing
            batches, steps = 0, 0
        return batches + (self.trainer.global_step - steps) * int(self.trainer.accumulate_grad_batches)

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches and of optimizer steps done."""
        steps = self._origin[1] if self.trainer is None else self.trainer.global_step
        return {"batches": self.batches_done(), "steps": steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the batches that `state_dict` counts."""
        self._origin = (int(state_dict["batches"]), int(state_dict["steps"]))


def stacked(runs: Mapping[str, Columns], names: tuple[str, ...]) -> dict[str, Any]:
    """Columns of all runs one after the other, and `run`, the name of the run of each row, where there are several."""
    arrays: dict[str, Any] = {name: np.concatenate([run[name] for run in runs.values()]) for name in names}
    if len(runs) > 1:
        arrays["run"] = np.repeat(list(runs), [len(run["step"]) for run in runs.values()])
    return arrays


def whole_number(key: str, value: Any, least: int = 1) -> int:
    """Return a setting that must be a whole number; InputError naming it."""
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least:
        return int(value)
    allowed = f"a whole number, {least} or more" + (", or null for all points" if key == "data.batch_size" else "")
    raise InputError(f"{key}={value!r} is not usable: give {allowed}.")


def _clip(batch_size: int | None, n: int) -> int | None:
    if batch_size is not None and batch_size > n:
        warnings.warn(
            f"data.batch_size={batch_size} is above the {n} training points; all {n} are used in every step.",
            SpectrainWarning,
            stacklevel=4,
        )
        return None
    return batch_size
