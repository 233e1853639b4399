"""Networks around a network: with the equation's unknown numbers beside it, or made to fit a condition exactly."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

COEFFICIENTS = "coefficients"


class Solution(nn.Module):
    """A network with the unknown coefficients of an equation beside it, so that one optimizer trains both."""

    def __init__(self, network: nn.Module, coefficients: Mapping[str, float]) -> None:
        super().__init__()
        self.network = network
        dtype = next(network.parameters()).dtype
        self.coefficients = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(float(start), dtype=dtype)) for name, start in coefficients.items()}
        )

    def forward(self, x: Any) -> Any:
        """The network's output; x is a tensor, or a jet in its place."""
        return self.network(x)


class HardConditions(nn.Module):
    """``u(x) = lift(x) + bubble(x) network(x)``: where bubble is zero, u is lift, exactly.

    `lift` and `bubble` map [n, d] to [n, C] or [n, 1], written with torch's functions of slices such as ``x[:, :1]``.
    Then leave the condition out of the equation.
    """

    def __init__(self, network: nn.Module, bubble: Any, lift: Any = None) -> None:
        super().__init__()
        self.network, self._bubble, self._lift = network, bubble, lift

    def forward(self, x: Any) -> Any:
        """The network's output, made to fit; x is a tensor, or a jet in its place."""
        inside = self._bubble(x) * self.network(x)
        return inside if self._lift is None else inside + self._lift(x)


def zero_at_ends(low: Sequence[float], high: Sequence[float]) -> Any:
    """A bubble: ``prod_i 4 (x_i - low_i) (high_i - x_i) / (high_i - low_i)^2`` over the first inputs."""

    def bubble(x: Any) -> Any:
        product: Any = 1.0
        for i, (a, b) in enumerate(zip(low, high, strict=True)):
            xi = x[:, i : i + 1]
            product = product * ((xi - a) * (b - xi) * (4 / (b - a) ** 2))
        return product

    return bubble
