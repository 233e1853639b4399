"""A symmetric kernel that stays with the ranks that computed it: nothing of it travels, only products with it.

Legend: n points, R ranks, b columns. Rank r computes the rows from s_r to s_{r+1} of K, of those what lies on and to
the right of the diagonal block: the points before s_r are none of its business, and no entry is computed twice. The
steps s are such that all ranks have the same work: the passes for n - s_r points, and the entries. Of K each rank holds
about n^2 / (2 R) numbers, and one product sends n b per rank.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from spectrain.kernels.blocks import pass_work
from spectrain.kernels.distributed import all_or_none
from spectrain.kernels.memory import budget_bytes
from spectrain.kernels.network import Inputs, Network, rows_of, take_rows, undisturbed
from spectrain.kernels.run import Run, pair_work


@dataclass(frozen=True)
class SharedKernel:
    """K [n, n] as an operator, of which this rank holds ``block = K[s : s + q, s:]``; all ranks multiply together."""

    block: Float[Tensor, "q rest"]
    n: int
    group: ProcessGroup

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return (self.n, self.n)

    @property
    def dtype(self) -> torch.dtype:
        """Of the products."""
        return self.block.dtype

    @property
    def device(self) -> torch.device:
        """Of the products."""
        return self.block.device

    def __matmul__(self, V: Float[Tensor, "n b"], /) -> Float[Tensor, "n b"]:
        """K V, the same bits on all ranks: with an upper part B = [D E] of K, D V_1 + E V_2 above and E^T V_1 below."""
        q, rest = self.block.shape
        mine = V[self.n - rest :].to(self.dtype)
        product = mine.new_zeros(self.n, V.shape[1])
        rows, below = product[self.n - rest :].split([q, rest - q])
        torch.mm(self.block, mine, out=rows)
        torch.mm(self.block[:, q:].T, mine[:q], out=below)
        dist.all_reduce(product, group=self.group)
        return product.to(V.dtype)

    def diagonal(self) -> Float[Tensor, " n"]:
        """Of all of K."""
        q, rest = self.block.shape
        values = self.block.new_zeros(self.n)
        values[self.n - rest : self.n - rest + q] = self.block.diagonal()
        dist.all_reduce(values, group=self.group)
        return values


def shared_ntk(module: nn.Module, x: Inputs, group: ProcessGroup, *, progress: bool = True) -> SharedKernel:
    """The trace kernel of `empirical_ntk` of the points x, shared over the ranks of `group`; all of them call.

    Raises:
        InputError: as `empirical_ntk`, on every rank if one of them fails.
    """
    network, n, rank, ranks = Network(module), rows_of(x), dist.get_rank(group), dist.get_world_size(group)
    with undisturbed(network):
        # Ranks on one machine share its memory; each GPU is its rank's own.
        budget = budget_bytes(None, network.device) // (ranks if network.device.type == "cpu" else 1)
        run = Run(network, "trace", frozenset(), False, False, budget, progress and rank == 0)
        error: Exception | None = None
        block = torch.zeros(0, 0, dtype=network.dtype, device=network.device)
        try:
            seen = run.look(x)
            start, stop = list(pairwise(steps(n, ranks, pass_work(seen, 1), pair_work(seen, 1))))[rank]
            if stop > start:
                block = run.kernels(take_rows(x, slice(start, n)), None, first=stop - start)[""]
        except (RuntimeError, ValueError) as failure:
            error = failure
        all_or_none(error, network.device, group)
    return SharedKernel(block, n, group)


def steps(n: int, ranks: int, point: float, pair: float) -> list[int]:
    """0 = s_0 <= s_1 <= ... <= s_R = n, such that ranks with q rows of the last p = n - s points have the same work.

    ``work = point p + pair (q p - q^2 / 2)``, with `point` for the passes of one point and `pair` for one entry.
    """

    def bounds(work: float) -> list[float]:
        found = [0.0]
        for _ in range(ranks):
            p = n - found[-1]
            area = max(0.0, work - point * p) / pair
            found.append(n - max(0.0, p * p - 2 * area) ** 0.5)
        return found

    low, high = 0.0, point * n + pair * n * n / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if bounds(middle)[-1] >= n else (middle, high)
    return [*(round(s) for s in bounds(high)[:-1]), n]
