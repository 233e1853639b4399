"""The LightningModule that trains a wide network, with or without a preconditioner.

Shapes: b points of a batch, d input dims, C outputs.
"""

from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import spectrain
from spectrain.errors import InputError
from spectrain.metrics import FieldMetrics, Quality
from spectrain.optim import apply_scales, scaled_groups, switch_weights
from spectrain.preconditioners import Guard, Preconditioner
from spectrain.preconditioners.ranks import mean_over_ranks


class WideNetworkModule(pl.LightningModule):
    """Trains ``network`` on batches (x [b, d], y [b, C], index [b]) with any loss, optimizer and schedule.

    The preconditioner acts on gradients only; the loss computed and logged is the true one.

    Args:
        network: any `nn.Module` from [b, d] to [b, C].
        optimizer: from parameters to an optimizer, e.g. ``functools.partial(torch.optim.Adam, lr=1e-2)``.
        schedule: from the optimizer to a scheduler stepped at every step; None keeps the rate.
        loss: (output, y) -> scalar, a mean over the batch.
        scale_free: the optimizer's steps do not shrink with the gradient (Adam, Muon, SOAP): see `scaled_groups`.
        preconditioner: None trains without.
        guard: shrink S, and take steps back, where it does harm: see `Guard`.
        metrics: accumulates the predictions of the validation batches; its values are logged under ``val/``.
        config_yaml: kept in every checkpoint, so that the run can be resumed and evaluated from the checkpoint alone.
        hparams: plain containers, handed to the loggers.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        *,
        schedule: Callable[[Optimizer], LRScheduler] | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] = functional.mse_loss,
        scale_free: bool = False,
        preconditioner: Preconditioner | None = None,
        guard: bool = False,
        metrics: FieldMetrics | None = None,
        config_yaml: str = "",
        hparams: Any = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.preconditioner = preconditioner
        self.metrics = metrics
        self._optimizer, self._schedule, self.loss = optimizer, schedule, loss
        self._scale_free, self._config_yaml = scale_free, config_yaml
        self.guard: Guard | None = None
        self._guarded = guard and preconditioner is not None
        self._guard_state: dict[str, Any] | None = None
        if hparams:
            self.save_hyperparameters(hparams)

    @property
    def quality(self) -> Quality | None:
        """The number that the run is judged by, where it is measured."""
        return None if self.metrics is None else self.metrics.quality

    def forward(self, x: Tensor) -> Tensor:
        """The network's output [b, C]."""
        output: Tensor = self.network(x)
        return output

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """The true loss; S enters in its backward pass."""
        loss = self.guarded_loss(batch)
        if self.guard is not None:
            self.log("preconditioner/strength", self.guard.preconditioner.strength)
            self.log("preconditioner/shrunk_steps", float(self.guard.shrunk_steps))
            self.log("preconditioner/rejected_steps", float(self.guard.rejected_steps))
        if not bool(torch.isfinite(loss)):
            raise InputError(self._diverged(float(loss.detach())))
        self._log_step()
        self.log("train/loss", loss, prog_bar=True)
        self.log("optimizer/lr", self._rate())
        return loss

    def batch_loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The true loss, of the batch of all ranks, whose gradient at the network's output is preconditioned."""
        x, y, index = batch
        output = self(x) if self.preconditioner is None else self.preconditioner.run(self.network, x, index)
        loss = self.loss(output, y)
        return mean_over_ranks(loss, len(y)) if self._trainer is not None and self.trainer.world_size > 1 else loss

    def guarded_loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The same, after the guard has judged the last step by it, where there is a guard."""
        if self.guard is None:
            return self.batch_loss(batch)
        return self.guard.loss(lambda: self.batch_loss(batch), batch[0])

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Collect the predictions."""
        if self.metrics is not None:
            self.metrics.update(self(batch[0]))

    def on_validation_epoch_end(self) -> None:
        """Log ``val/...`` on the whole validation set."""
        if self.metrics is not None:
            self._log_step()
            values, quality = self.metrics.compute(), self.metrics.quality.name
            if bool(torch.isnan(values[quality])):  # before this state is saved as a good one
                raise InputError(self._diverged(float("nan")))
            for name, value in values.items():
                self.log(f"val/{name}", value, prog_bar=name == quality)

    def on_train_start(self) -> None:
        """A schedule-free optimizer has weights to train and weights to evaluate; checkpoints hold the latter."""
        self._switch("train")

    def on_validation_end(self) -> None:
        """After the checkpoints, which callbacks write."""
        self._switch("train")

    def on_train_end(self) -> None:
        """What is left in the network is what was evaluated."""
        self._switch("eval")

    def on_validation_epoch_start(self) -> None:
        """Forget the predictions of the last validation."""
        self._switch("eval")
        if self.metrics is not None:
            self.metrics.reset()

    def configure_optimizers(self) -> Any:
        """The base optimizer and its schedule, stepped once per optimizer step."""
        if self._scale_free:
            optimizer = apply_scales(self._optimizer(scaled_groups(self.network)))
        else:
            optimizer = self._optimizer(self.network.parameters())
        if self.preconditioner is not None:
            self.preconditioner.shared = self._trainer is not None and self.trainer.world_size > 1
            optimizer = self.preconditioner.wrap(optimizer)
        if self._guarded:
            self.guard = self._make_guard(optimizer)
        if self._schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._schedule(optimizer), "interval": "step"}}

    def _make_guard(self, optimizer: Optimizer) -> Guard:
        if self._trainer is not None and self.trainer.world_size > 1:
            raise InputError(
                f"guard=true judges steps in one process, and there are {self.trainer.world_size}; give guard=false."
            )
        assert self.preconditioner is not None
        guard = Guard(self.preconditioner, self.network, optimizer, rescale=not self._scale_free)
        return guard if self._guard_state is None else guard.load_state_dict(self._guard_state)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add version, configuration and preconditioner; a checkpoint holds tensors and primitives only."""
        checkpoint["spectrain_version"] = spectrain.__version__
        checkpoint["config"] = self._config_yaml
        if self.preconditioner is not None:
            checkpoint["preconditioner"] = self.preconditioner.state_dict()
        if self.guard is not None:
            checkpoint["guard"] = self.guard.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the preconditioner; weights of double precision must not pass through a network of single."""
        floating = [value for value in checkpoint["state_dict"].values() if value.is_floating_point()]
        if floating:
            self.network.to(floating[0].dtype)
        if self.preconditioner is not None and "preconditioner" in checkpoint:
            self.preconditioner.load_state_dict(checkpoint["preconditioner"])
        self._guard_state = checkpoint.get("guard")  # its optimizer is made later

    def _switch(self, mode: str) -> None:
        """Which of its weights a schedule-free optimizer puts into the network; others have one set."""
        if self.trainer.state.fn == "fit":
            for optimizer in self.trainer.optimizers:
                switch_weights(optimizer, mode)

    def _rate(self) -> float:
        group = self.trainer.optimizers[0].param_groups[0]
        return float(group["lr"] / group.get("lr_scale", 1.0))

    def _log_step(self) -> None:
        """Rows are numbered by the optimizer steps already made; Lightning's own count is one short after a resume."""
        self.log("step", float(self.trainer.global_step))

    def _diverged(self, loss: float) -> str:
        paths = [getattr(callback, "best_model_path", "") for callback in self.trainer.checkpoint_callbacks]
        saved = next((path for path in reversed(paths) if path), "none yet")  # the last one's is its latest
        return (
            f"The loss is {loss} at step {self.trainer.global_step} (learning rate {self._rate():.3g}); the run stops "
            f"here. Last good checkpoint: {saved}. "
            "Try a lower optimizer.lr, preconditioner=none, or a smaller spectrum.rank."
        )
