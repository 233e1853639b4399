"""The LightningModule that fits data by Gauss-Newton steps on the squared error."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from spectrain.errors import InputError
from spectrain.lightning.module import WideNetworkModule
from spectrain.metrics import FieldMetrics
from spectrain.optim import LeastSquares


class LeastSquaresModule(WideNetworkModule):
    """`WideNetworkModule` with `GaussNewton`, which takes the residuals f(x) - y of a batch in place of a gradient.

    Args:
        network: any `nn.Module` from [b, d] to [b, C].
        optimizer: from parameters to a `GaussNewton`.
        metrics, config_yaml, hparams: as `WideNetworkModule`.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        *,
        metrics: FieldMetrics | None = None,
        config_yaml: str = "",
        hparams: Any = None,
    ) -> None:
        super().__init__(network, optimizer, metrics=metrics, config_yaml=config_yaml, hparams=hparams)
        self.automatic_optimization = False
        self._fit = LeastSquares(network)

    def configure_optimizers(self) -> Any:
        """Gauss-Newton, without a schedule."""
        if self._trainer is not None and self.trainer.world_size > 1:  # nothing here waits for the others
            raise InputError(
                f"Gauss-Newton fits data in one process, and there are {self.trainer.world_size}; give devices=1."
            )
        return super().configure_optimizers()

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """One step; the mean squared error before it."""
        x, y, _ = batch
        residuals = self._fit.residuals(x, y)
        optimizer: Any = self.optimizers()
        self._log_step()
        loss: Tensor = optimizer.step(closure=lambda: residuals) * (2 / y.numel())
        self.log("train/loss", loss, prog_bar=True)
        self.log("optimizer/step_size", optimizer.state["step_size"])
        return loss
