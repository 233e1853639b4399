"""The sum of factors of one parameter.

Legend: n points, C outputs, p columns of the Jacobian, q a chunk of them, k columns of a product.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.kernels.factors.base import Factor, Sizes


@dataclass(frozen=True)
class Sum(Factor):
    """G = G_1 + G_2 + ..., a parameter with uses that cannot be joined as positions of one factor."""

    parts: tuple[Factor, ...]

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of all parts."""
        return tuple(t for part in self.parts for t in part.tensors())

    def like(self, tensors: Sequence[Tensor]) -> "Sum":
        """The same parts made of other tensors."""
        rest = list(tensors)
        parts = []
        for part in self.parts:
            count = len(part.tensors())
            parts.append(part.like(rest[:count]))
            rest = rest[count:]
        return Sum(tuple(parts))

    @property
    def sizes(self) -> Sizes:
        """The layer's shape, and all positions of all uses."""
        first = self.parts[0].sizes
        return Sizes(sum(part.sizes.positions for part in self.parts), first.inputs, first.outputs, first.groups)

    def columns(self, start: int, stop: int, room: Tensor | None = None) -> Float[Tensor, "n C q"]:
        """The sum of the parts' columns."""
        total = self.parts[0].columns(start, stop).clone()
        for part in self.parts[1:]:
            total += part.columns(start, stop)
        return total

    def pull(self, v: Float[Tensor, "n C k"]) -> Float[Tensor, "k p"]:
        """The sum of the parts'."""
        return torch.stack([part.pull(v) for part in self.parts]).sum(0)

    def push(self, g: Float[Tensor, "k p"]) -> Float[Tensor, "n C k"]:
        """The sum of the parts'."""
        return torch.stack([part.push(g) for part in self.parts]).sum(0)

    def with_outputs(self, C: int) -> "Sum":
        """The parts, repeated."""
        return Sum(tuple(part.with_outputs(C) for part in self.parts))

    def output(self, c: int) -> "Sum":
        """The parts, of one output alone."""
        return Sum(tuple(part.output(c) for part in self.parts))
