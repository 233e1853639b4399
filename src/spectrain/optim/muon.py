"""Muon for the matrices of a network and Adam for the rest, as one optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from spectrain.errors import InputError


class MuonWithAdam(torch.optim.Optimizer):
    """`torch.optim.Muon` on parameters with two dimensions, `torch.optim.Adam` on all others.

    Muon (Jordan 2024) orthogonalises the momentum of a matrix and is not defined for anything else. The update is
    scaled to Adam's RMS (``adjust_lr_fn="match_rms_adamw"``), so that one learning rate serves both parts.

    The inner optimizers share this object's `param_groups`: schedulers, checkpoints and `zero_grad` see one optimizer.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-2,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        groups = [p if isinstance(p, dict) else {"params": [p]} for p in params]
        matrices = _only(groups, lambda p: p.ndim == 2)
        rest = _only(groups, lambda p: p.ndim != 2)
        self._inner: list[torch.optim.Optimizer] = []
        if matrices:
            self._inner.append(
                torch.optim.Muon(
                    matrices, lr=lr, momentum=momentum, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
                )
            )
        if rest:
            self._inner.append(torch.optim.Adam(rest, lr=lr, betas=betas, weight_decay=weight_decay))
        super().__init__([group for inner in self._inner for group in inner.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let each inner optimizer work on this object's groups and state."""
        remaining = list(self.param_groups)
        for inner in self._inner:
            count = len(inner.param_groups)
            inner.param_groups, remaining = remaining[:count], remaining[count:]
            inner.state = self.state
        self._shared = True

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused once made: the group would have to be split between the inner optimizers."""
        if hasattr(self, "_shared"):
            raise InputError("MuonWithAdam takes all its parameters when it is made; make a new one with the new ones.")
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of both; the closure, if any, runs once and its loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for inner in self._inner:
            inner.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As `torch.optim.Optimizer.load_state_dict`; the inner optimizers follow."""
        super().load_state_dict(state_dict)
        self._share()


def _only(groups: list[dict[str, Any]], keep: Callable[[Tensor], bool]) -> list[dict[str, Any]]:
    """The groups with those of their parameters that `keep` accepts, without the empty ones."""
    kept = [{**group, "params": [p for p in group["params"] if keep(p)]} for group in groups]
    return [group for group in kept if group["params"]]
