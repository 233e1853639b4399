"""What is evaluated and saved has its last layer by least squares; training goes on with its own."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import Tensor

from spectrain.errors import InputError
from spectrain.lightning.history import RunHistory
from spectrain.lightning.module import WideNetworkModule
from spectrain.optim.readout import readout, solve_readout


class SolvedReadout(pl.Callback):
    """`solve_readout` on the training points at every validation; the trained layer comes back with the next batch.

    Checkpoints, which are written in between, hold the solved layer as the network's and the trained one here. This
    callback stands before `RunHistory` and `SpectrumCallback`: the run's clock counts the solution, and a refresh sees
    the trained layer.
    """

    def __init__(self) -> None:
        self._trained: dict[str, Tensor] = {}  # by parameter; empty unless the solved layer is in the network

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse averages of the weights, which are put into the network at validations too, and another order.

        Raises:
            InputError: naming the callback.
        """
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            if isinstance(callback, RunHistory) and callbacks.index(callback) < callbacks.index(self):
                raise InputError("SolvedReadout must stand before RunHistory and what follows it.")
            if isinstance(callback, WeightAveraging | StochasticWeightAveraging):
                raise InputError(
                    f"readout=solved and {type(callback).__name__} both put other weights into the network where it is "
                    "evaluated; keep one of them (readout=trained)."
                )

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Solve."""
        if trainer.state.fn != "fit":
            return
        module: WideNetworkModule = pl_module  # type: ignore[assignment]
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        with torch.inference_mode(False), torch.no_grad(), trainer.precision_plugin.forward_context():
            like = next(module.network.parameters())  # 64-true makes the network double, not the data module's points
            x, y = data.train_x.to(like), data.train_y.to(like)
            layer = readout(module.network, x[:1])
            mine = {id(p) for p in layer.parameters(recurse=False)}
            self._trained = {name: p.detach().clone() for name, p in module.network.named_parameters() if id(p) in mine}
            solve_readout(module.network, x, y, chunk_size=data.chunk_size)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put the trained layer back."""
        module: WideNetworkModule = pl_module  # type: ignore[assignment]
        with torch.no_grad():
            for name, trained in self._trained.items():
                module.network.get_parameter(name).copy_(trained)
        self._trained = {}

    def state_dict(self) -> dict[str, Any]:
        """The trained layer, if another one is in the network."""
        return dict(self._trained)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """It goes back with the first batch."""
        self._trained = dict(state_dict)
