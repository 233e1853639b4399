"""What a run on an equation did over its steps: errors, losses on the points trained on and on fresh ones, time."""

import warnings
from typing import Any, cast

import pytorch_lightning as pl
from torch import Tensor

from spectrain.errors import SpectrainWarning
from spectrain.lightning.history import RunHistory, log_times
from spectrain.lightning.physics_module import PARTED, PhysicsModule
from spectrain.lightning.spectrum_callback import SpectrumCallback
from spectrain.preconditioners.refresh import attempt
from spectrain.spectrum import Spectrum


class PhysicsHistory(RunHistory):
    """One row per validation; the clock of `RunHistory`, which stands still while errors are measured.

    Keeps the spectrum of the residuals' kernel before the first step. Warns once when the loss on fresh points parts
    from that on the points trained on.
    """

    def __init__(self) -> None:
        super().__init__(SpectrumCallback())
        self.initial: Spectrum | None = None
        self._warned = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The row of step 0, and the spectrum before training; charged to nobody."""
        if self.rows:
            return
        module = cast(PhysicsModule, pl_module)
        self.initial = attempt(
            module.spectrum,
            module.device,
            "The spectrum before training could not be computed",
            lambda: "and is left out",
        )
        module.measure(trainer.global_step)
        self.record(trainer, pl_module)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Nothing: the row of step 0 is there."""

    def record(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One row: step, seconds, cpu_seconds and what the module has measured."""
        measured = cast(PhysicsModule, pl_module).measured
        row = {"step": trainer.global_step, "seconds": self.clock.seconds, "cpu_seconds": self.clock.cpu_seconds}
        self.rows.append({**row, **measured})
        log_times(trainer, self.rows)
        trained, fresh = measured["point_loss"], measured["fresh_loss"]
        if not self._warned and trainer.global_step > 0 and fresh > PARTED * trained:
            self._warned = True
            warnings.warn(
                f"The loss on fresh points is {fresh:.1e} and {trained:.1e} on those trained on: the network fits its "
                "points and not the equation between them. Draw them anew (data.resample_every_n_steps=1) or take more "
                "(data.points).",
                SpectrainWarning,
                stacklevel=2,
            )

    def state_dict(self) -> dict[str, Any]:
        """Primitives and the first spectrum's tensors."""
        return {**super().state_dict(), "initial": self.initial.state_dict() if self.initial else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from an earlier part of the run."""
        super().load_state_dict(state_dict)
        self.initial = Spectrum.from_state_dict(state_dict["initial"]) if state_dict["initial"] else None
