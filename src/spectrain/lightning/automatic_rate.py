"""``optimizer.lr=auto``: the learning rate of gradient descent, measured at the start and after every refresh.

Letters: n points, m points of a step.
"""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from spectrain.lightning.module import WideNetworkModule
from spectrain.lightning.spectrum_callback import SpectrumCallback
from spectrain.preconditioners.step_size import ITERATIONS, measure_rate

POINTS = 1024  # at most, of the training points; a measurement costs about 3 passes over them per iteration
WARM_ITERATIONS = 4  # from the last eigenvector


class AutomaticRate(pl.Callback):
    """Measures the rate (`spectrain.automatic_rate`) and scales the optimizer's and its schedule's to it.

    Stands after the `SpectrumCallback` whose refreshes it follows. The module's optimizer is made with the rate 1.
    """

    def __init__(self, spectrum: SpectrumCallback) -> None:
        self._spectrum = spectrum
        self.rate: float | None = None
        self._refreshes = -1
        self._vector: Tensor | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Measure where the preconditioner has changed."""
        if self._refreshes == self._spectrum.refreshes:
            return
        self._refreshes = self._spectrum.refreshes
        with torch.autocast(pl_module.device.type, enabled=False):
            rate = trainer.strategy.broadcast(self._measure(trainer, pl_module))  # type: ignore[arg-type]
        if self.rate is None and trainer.is_global_zero:
            print(f"optimizer.lr=auto: {rate:.3g}, and measured again at every refresh of the spectrum", flush=True)
        self._set(trainer, rate / (self.rate or 1.0))
        self.rate = rate
        for logger in trainer.loggers:
            logger.log_metrics({"optimizer/auto_lr": rate}, step=trainer.global_step)

    def _measure(self, trainer: pl.Trainer, module: WideNetworkModule) -> float:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        parameter = next(module.network.parameters())
        n = len(data.train_x)
        index = None
        if n > POINTS:
            index = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:POINTS]
        rows = slice(None) if index is None else index
        x, y = (t[rows].to(parameter.device, parameter.dtype) for t in (data.train_x, data.train_y))
        parts = trainer.accumulate_grad_batches
        rate, self._vector = measure_rate(
            module.network,
            x,
            lambda output: module.loss(output, y),
            module.preconditioner,
            index=None if index is None else index.to(x.device),
            batch_size=None if data.batch_size is None else data.batch_size * parts,
            momentum=float(trainer.optimizers[0].param_groups[0].get("momentum", 0.0)),
            modes=self._spectrum.modes if module.preconditioner is not None else None,
            iterations=ITERATIONS if self._vector is None else WARM_ITERATIONS,
            start=self._vector,
        )
        return rate

    def _set(self, trainer: pl.Trainer, factor: float) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] *= factor
            if "initial_lr" in group:
                group["initial_lr"] *= factor
        for config in trainer.lr_scheduler_configs:
            config.scheduler.base_lrs = [rate * factor for rate in config.scheduler.base_lrs]  # type: ignore[union-attr]

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives; loads under ``weights_only=True``."""
        return {"rate": self.rate, "refreshes": self._refreshes, "vector": self._vector}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; optimizer and schedule bring their own rates."""
        self.rate, self._refreshes, self._vector = (state_dict[name] for name in ("rate", "refreshes", "vector"))
