"""The state of a training that can be gone back to: weights, buffers, the optimizer's state."""

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# What a schedule or a person sets in an optimizer's groups. All else there may be state: pytorch_optimizer keeps its
# count of steps in a group, Prodigy its estimate of the distance, a schedule-free optimizer the sum of its weights.
SETTINGS = ("params", "lr", "initial_lr", "momentum", "betas", "weight_decay")


class Snapshot:
    """Copies of a network's weights and buffers and of an optimizer's state, as they are now.

    An optimizer's `SETTINGS` (rates, schedules) are not part of it. `restore` is exact, and may be called again.
    """

    def __init__(self, network: nn.Module, optimizer: Optimizer) -> None:
        self._network, self._optimizer = network, optimizer
        self.tensors = [tensor.detach().clone() for tensor in _tensors(network)]
        self.state: dict[Any, Any] = copy.deepcopy(optimizer.state_dict()["state"])
        self.groups = [
            copy.deepcopy({name: value for name, value in group.items() if name not in SETTINGS})
            for group in optimizer.param_groups
        ]

    @property
    def interval(self) -> int:
        """Steps between two snapshots for which they cost one copy of the weights per step, 1 for plain SGD."""
        weights = sum(tensor.numel() for tensor in self.tensors)
        return max(1, round((weights + _numel(self.state)) / max(1, weights)))

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back, to the bit."""
        for tensor, saved in zip(_tensors(self._network), self.tensors, strict=True):
            tensor.copy_(saved)
        now = self._optimizer.state_dict()["param_groups"]
        groups = [
            {name: group[name] for name in SETTINGS if name in group} | copy.deepcopy(then)
            for group, then in zip(now, self.groups, strict=True)
        ]
        self._optimizer.load_state_dict({"state": copy.deepcopy(self.state), "param_groups": groups})

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives."""
        return {"tensors": self.tensors, "state": self.state, "groups": self.groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> Self:
        """Hold what `state_dict` returned in place of what is held."""
        self.tensors = [
            saved.to(tensor) for saved, tensor in zip(state_dict["tensors"], _tensors(self._network), strict=True)
        ]
        self.state, self.groups = state_dict["state"], state_dict["groups"]
        return self


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _numel(node: Any) -> int:
    """Entries of all tensors in nested containers."""
    if isinstance(node, Tensor):
        return node.numel()
    if isinstance(node, dict):
        return sum(map(_numel, node.values()))
    return sum(map(_numel, node)) if isinstance(node, list | tuple) else 0
