"""Embeddings: a Linear layer on one-hot vectors, which are never formed.

Legend: n, m points, C outputs, T positions, o the embedding's dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spectrain.kernels.factors.base import Factor, Sizes


@dataclass(frozen=True)
class Index(Factor):
    """G[i, c] = sum_t onehot(index[i, t]) (x) b[i, c, t]."""

    entries: int
    index: Int[Tensor, "n T"]
    b: Float[Tensor, "n C T o"]
    by_entry: bool = False  # count columns by entry of the table, as a Linear layer with the same weight does

    def tensors(self) -> tuple[Tensor, ...]:
        """The indices and the output gradients."""
        return (self.index, self.b)

    def like(self, tensors: Sequence[Tensor]) -> "Index":
        """The same table at other points."""
        return replace(self, index=tensors[0], b=tensors[1])

    @property
    def sizes(self) -> Sizes:
        """One-hot inputs, as many as the table has entries."""
        T, o = self.b.shape[2:]
        return Sizes(T, o, self.entries) if self.by_entry else Sizes(T, self.entries, o)

    def columns(self, start: int, stop: int, room: Tensor | None = None) -> Float[Tensor, "n C q"]:
        """Output gradients added up per entry of the table."""
        n, C, T, o = self.b.shape
        if not self.by_entry:
            g = self.b.new_zeros(n, C, self.entries, stop - start)
            where = self.index.view(n, 1, T, 1).expand(n, C, T, stop - start)
            return g.scatter_add_(2, where, self.b[..., start:stop]).transpose(2, 3).reshape(n, C, -1)
        inside = (self.index >= start) & (self.index < stop)
        g = self.b.new_zeros(n, C, stop - start, o)
        where = (self.index - start).clamp(0, stop - start - 1).view(n, 1, T, 1).expand(n, C, T, o)
        return g.scatter_add_(2, where, self.b * inside.view(n, 1, T, 1)).flatten(2)

    @property
    def has_positions(self) -> bool:
        """Unless columns must agree with another layer's."""
        return not self.by_entry

    def input_gram(self, other: Factor, rows: slice, columns: slice) -> Float[Tensor, "n T m S"]:
        """1 where two positions hold the same entry."""
        assert isinstance(other, Index)
        return (self.index[rows, :, None, None] == other.index[None, None, columns]).to(self.b.dtype)

    def pull(self, v: Float[Tensor, "n C k"]) -> Float[Tensor, "k p"]:
        """Weighted output gradients, added up per entry."""
        weighted = torch.einsum("nck,ncto->knto", v, self.b)
        k, _, _, o = weighted.shape
        table = weighted.new_zeros(k, self.entries, o)
        return table.index_add_(1, self.index.flatten(), weighted.flatten(1, 2)).flatten(1)

    def push(self, g: Float[Tensor, "k p"]) -> Float[Tensor, "n C k"]:
        """Output gradients times the entries' rows of g."""
        rows = g.view(g.shape[0], self.entries, -1)[:, self.index]
        return torch.einsum("ncto,knto->nck", self.b, rows)

    def output_positions(self) -> Float[Tensor, "n C T o"]:
        """The factor b."""
        return self.b
