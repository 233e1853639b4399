"""``optimizer.lr=auto``: the learning rate of gradient descent, measured at the start and after every refresh.

Letters: n points, m points of a step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from spectrain.lightning.module import WideNetworkModule
from spectrain.lightning.spectrum_callback import SpectrumCallback
from spectrain.lightning.tracking import log_scalars
from spectrain.preconditioners import AutoPreconditioner, Preconditioner
from spectrain.preconditioners.refresh import last_due
from spectrain.preconditioners.step_size import ITERATIONS, measure_rate

POINTS = 1024  # at most, of the training points; a measurement costs about 3 passes over them per iteration
WARM_ITERATIONS = 4  # from the last eigenvector


class AutomaticRate(pl.Callback):
    """Measures the rate (`spectrain.automatic_rate`) and scales the optimizer's and its schedule's to it.

    Stands after the `SpectrumCallback` whose refreshes it follows, and after `AutoCallback`, which may switch S. The
    module's optimizer is made with the rate 1.
    """

    def __init__(self, spectrum: SpectrumCallback) -> None:
        self._spectrum = spectrum
        self.rate: float | None = None
        self._measured: list[Any] = []  # what S was then
        self._vector: Tensor | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Measure where the preconditioner has changed."""
        module: WideNetworkModule = pl_module  # type: ignore[assignment]
        now = self._state_of(trainer, module.preconditioner)
        if now == self._measured:
            return
        self._measured = now
        self.measure(trainer, module)
        log_scalars(trainer, {"optimizer/auto_lr": float(self.rate or 0)})

    def _state_of(self, trainer: pl.Trainer, S: Preconditioner | None) -> list[Any]:
        """Differs where S does. A way without refreshes, or auto that is off, is looked at when one would be due."""
        if S is None:
            return [0]
        due = 0 if S.needs_spectrum else last_due(trainer.global_step, self._spectrum.every_n_steps)
        chosen = [S.name, len(S.trials)] if isinstance(S, AutoPreconditioner) else []
        return [self._spectrum.refreshes, due, *chosen]

    def measure(self, trainer: pl.Trainer, module: WideNetworkModule) -> None:
        """The rate for the present S and weights, from now on."""
        with torch.autocast(module.device.type, enabled=False), _full_strength(module):
            rate = trainer.strategy.broadcast(self._measure(trainer, module))
        if self.rate is None and trainer.is_global_zero:
            again = "" if module.preconditioner is None else ", and measured again at every refresh of the spectrum"
            print(f"optimizer.lr=auto: {rate:.3g}{again}", flush=True)
        self._set(trainer, rate / (self.rate or 1.0))
        self.rate = rate

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
        return {"rate": self.rate, "measured": self._measured, "vector": self._vector}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; optimizer and schedule bring their own rates."""
        self.rate, self._measured, self._vector = (state_dict[name] for name in ("rate", "measured", "vector"))


@contextmanager
def _full_strength(module: WideNetworkModule) -> Iterator[None]:
    """S as it is without the guard, which scales the step itself: `Guard` wants the rate that suits S."""
    S = module.preconditioner
    if S is None or module.guard is None:
        yield
        return
    strength, S.strength = S.strength, 1.0
    try:
        yield
    finally:
        S.strength = strength
