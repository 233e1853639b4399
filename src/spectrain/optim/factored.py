"""The Jacobian of a residual vector in factored form: products and kernel without the Jacobian.

Legend: n residuals, P parameters. Residuals come in blocks of rows, one for each condition and component, all with the
same layers; the factor of a layer's weight is G[i] = sum over channels s of b[i, s] (x) a[i, s], so that

    K = sum over layers and channel pairs (s, t) of (A_s A_t^T) o (B_s B_t^T),

or, where in * out is small against the number of channel pairs times (in + out), the layer's Jacobian and a product:
the cheaper one by the flops that `kernels.gram` counts.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spectrain.kernels import rank_rows
from spectrain.kernels.factors import Factor
from spectrain.kernels.gram import Pair, add_gram, mirror
from spectrain.optim.linearization import Linearization
from spectrain.preconditioners import ranks

_WORKSPACE = 2**28  # bytes for one tile of a Gram matrix, or for some rows of the Jacobian


@dataclass(frozen=True)
class RowBlock:
    """Residuals of one condition and component, and the factors of their gradients by parameter, one output each.

    `joined`: the same for K alone, where a weight and its bias may share a factor, and so a Gram matrix.
    """

    r: Float[Tensor, " rows"]
    factors: Mapping[str, Factor]
    joined: Mapping[Hashable, Factor] = field(default_factory=dict)

    def rows(self, rows: slice | Tensor) -> "RowBlock":
        """Some of the residuals."""
        return RowBlock(
            self.r[rows],
            {name: factor.rows(rows) for name, factor in self.factors.items()},
            {key: factor.rows(rows) for key, factor in self.joined.items()},
        )

    @property
    def for_kernel(self) -> Mapping[Any, Factor]:
        """The factors whose Gram matrices add up to K."""
        return self.joined or self.factors


class FactoredLinearization(Linearization):
    """Blocks of residuals; `shapes` holds every parameter in the optimizer's order.

    `shared`: every rank of torch.distributed has these factors, and computes its part of the rows of K and of J^T J.
    """

    def __init__(self, blocks: list[RowBlock], shapes: Mapping[str, torch.Size], *, shared: bool = False) -> None:
        self.r = torch.cat([block.r for block in blocks])
        self.parameters = sum(shape.numel() for shape in shapes.values())
        self.shapes = tuple(shapes.values())
        self._blocks, self._shapes, self._shared = blocks, shapes, shared
        ends = torch.tensor([len(block.r) for block in blocks]).cumsum(0).tolist()
        self._rows = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def gram(self) -> Float[Tensor, "n n"]:
        """``K = J J^T``; of its rows, those of this rank, on and above the diagonal, and the sum over ranks."""
        K = ranks.total(ranks.together(self._upper, self._shared), self._shared)
        mirror(K, 1)
        return K

    def _upper(self) -> Float[Tensor, "n n"]:
        """This rank's part of K on and above the diagonal."""
        K = self.r.new_zeros(len(self.r), len(self.r))
        for i, rows in enumerate(self._rows):
            for part in _triangle(rows.stop - rows.start, self._shared):
                self._add(K, i, i, part, part)
                self._add(K, i, i, part, slice(part.stop, rows.stop - rows.start))
            for j, columns in enumerate(self._rows[i + 1 :], start=i + 1):
                self._add(K, i, j, self._mine(rows.stop - rows.start), slice(0, columns.stop - columns.start))
        return K

    def _add(self, K: Float[Tensor, "n n"], i: int, j: int, rows: slice, columns: slice) -> None:
        """Some rows of block i against some of block j, slices within the blocks; symmetric where both are the same."""
        if rows.stop <= rows.start or columns.stop <= columns.start:
            return
        left, right = self._blocks[i].rows(rows).for_kernel, self._blocks[j].rows(columns).for_kernel
        block = K[self._rows[i], self._rows[j]][rows, columns]
        for name in (key for key in left if key in right):  # in the network's order, the same in every process
            add_gram(block, Pair(left[name], right[name], i == j and rows == columns, _WORKSPACE), 1)

    def columns(self, index: Int[Tensor, " m"]) -> Float[Tensor, "n m"]:
        """``K[:, index]``, index in rising order."""
        K = self.r.new_zeros(len(self.r), len(index))
        edges = torch.tensor([rows.stop for rows in self._rows], device=index.device)
        parts = torch.tensor_split(index, torch.searchsorted(index, edges).cpu())
        start = 0
        for rows, right, part in zip(self._rows, self._blocks, parts, strict=False):
            if len(part) == 0:
                continue
            chosen = right.rows(part - rows.start).for_kernel
            for others, left in zip(self._rows, self._blocks, strict=True):
                block = K[others, start : start + len(part)]
                for name in (key for key in chosen if key in left.for_kernel):
                    add_gram(block, Pair(left.for_kernel[name], chosen[name], False, _WORKSPACE), 1)
            start += len(part)
        return K

    def _mine(self, count: int) -> slice:
        return ranks.columns_of_ranks(count, self._shared)[ranks.my_rank(self._shared)]

    def diagonal(self) -> Float[Tensor, " n"]:
        """That of K, without the rest."""
        parts = [sum(factor.squares()[:, 0] for factor in block.factors.values()) for block in self._blocks]
        return torch.cat([torch.zeros_like(b.r) + part for b, part in zip(self._blocks, parts, strict=True)])

    def jacobian(self) -> Float[Tensor, "n P"]:
        """Formed."""
        return torch.cat([self._jacobian(block) for block in self._blocks])

    def normal(self) -> Float[Tensor, "P P"]:
        """``J^T J``, added up over some rows of J at a time: the memory does not grow with n."""
        rows = max(1, _WORKSPACE // (self.parameters * self.r.element_size()))
        A = self.r.new_zeros(self.parameters, self.parameters)
        for block in self._blocks:
            mine = self._mine(len(block.r))
            for start in range(mine.start, mine.stop, rows):
                J = self._jacobian(block.rows(slice(start, min(start + rows, mine.stop))))
                A.addmm_(J.T, J)
        return ranks.total(A, self._shared)

    def _jacobian(self, block: RowBlock) -> Float[Tensor, "rows P"]:
        J = self.r.new_zeros(len(block.r), self.parameters)
        for name, columns in self._columns():
            if name in block.factors:
                factor = block.factors[name]
                J[:, columns] = factor.columns(0, factor.sizes.outputs)[:, 0]
        return J

    def push(self, d: Float[Tensor, " P"]) -> Float[Tensor, " n"]:
        """``J d``, layer by layer."""
        parts = []
        for block in self._blocks:
            total = torch.zeros_like(block.r)
            for name, columns in self._columns():
                if name in block.factors:
                    total += block.factors[name].push(d[None, columns])[:, 0, 0]
            parts.append(total)
        return torch.cat(parts)

    def pull(self, v: Float[Tensor, " n"]) -> Float[Tensor, " P"]:
        """``J^T v``, layer by layer."""
        g = v.new_zeros(self.parameters)
        for rows, block in zip(self._rows, self._blocks, strict=True):
            for name, columns in self._columns():
                if name in block.factors:
                    g[columns] += block.factors[name].pull(v[rows, None, None])[0]
        return g

    def _columns(self) -> list[tuple[str, slice]]:
        found, start = [], 0
        for name, shape in self._shapes.items():
            found.append((name, slice(start, start + shape.numel())))
            start += shape.numel()
        return found


def _triangle(count: int, shared: bool) -> list[slice]:
    """This rank's rows of a triangle of `count` rows: a span from each end, so that all ranks have as many pairs."""
    if not shared:
        return [slice(0, count)]
    world, rank = ranks.count(shared), ranks.my_rank(shared)
    return [rank_rows(count, r, 2 * world) for r in (rank, 2 * world - 1 - rank)]
