"""Batches of points, in an order that a seed and a step decide.

Shapes: n training points, N points of a data module, b points of a batch, d input dims, C outputs.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Batch = tuple[Float[Tensor, "b d"], Float[Tensor, "b C"], Int[Tensor, " b"]]


class EndlessBatches:
    """Batches t = start(), start() + 1, ... without end; batch t is a pure function of (seed, t).

    Full batch (`batch_size=None`): always the same tensors, nothing is copied. Otherwise epoch e is a permutation of
    the n points drawn from (seed, e) and cut into floor(n / batch_size) batches: every batch has batch_size points, no
    point comes twice in an epoch, and the n mod batch_size points left over (others in each epoch) wait for the next.
    No global random number is drawn. `shard = (rank, world)` yields rows rank, rank + world, ... of the global batch:
    shares differ by one point at most when world does not divide it.
    """

    def __init__(
        self,
        x: Float[Tensor, "n d"],
        y: Float[Tensor, "n C"],
        batch_size: int | None,
        seed: int,
        start: Callable[[], int],
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.x, self.y, self.batch_size, self.seed, self.start = x, y, batch_size, seed, start
        self.rank, self.world = shard
        self._order: tuple[int, Tensor] | None = None  # (epoch, its permutation)

    def rows(self, t: int) -> Int[Tensor, " b"]:
        """Return the training rows of global batch t, before the split over ranks (only with a batch_size)."""
        assert self.batch_size is not None
        epoch, place = divmod(t, len(self.x) // self.batch_size)
        return self._permutation(epoch)[place * self.batch_size : (place + 1) * self.batch_size]

    def _permutation(self, epoch: int) -> Int[Tensor, " n"]:
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.x))
            self._order = (epoch, torch.from_numpy(order))
        return self._order[1]

    def __iter__(self) -> Iterator[Batch]:
        if self.batch_size is None:
            share = slice(self.rank, None, self.world)
            batch = (self.x[share], self.y[share], torch.arange(len(self.x))[share])
            while True:
                yield batch
        t = self.start()
        while True:
            index = self.rows(t)[self.rank :: self.world]
            yield self.x[index], self.y[index], index
            t += 1


class LatticeBatches(EndlessBatches):
    """Batches that are lattices on a grid of n = H x W points: every s-th row and column, from an offset of (seed, t).

    All have (H // s) (W // s) points. Every point has its turn, but there are no epochs: each offset is drawn anew. A
    smooth kernel's modes are nearly orthogonal on a lattice, which they are not on as many points at random.
    """

    def __init__(
        self,
        x: Float[Tensor, "n d"],
        y: Float[Tensor, "n C"],
        grid_shape: tuple[int, int],
        stride: int,
        seed: int,
        start: Callable[[], int],
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.grid_shape, self.stride = grid_shape, stride
        super().__init__(x, y, lattice_size(grid_shape, stride), seed, start, shard)

    def rows(self, t: int) -> Int[Tensor, " b"]:
        """Return the training rows of global batch t, in the grid's order."""
        draw, s = np.random.default_rng([self.seed, t]), self.stride
        down, along = (
            int(draw.integers(side - s * (side // s - 1))) + s * np.arange(side // s) for side in self.grid_shape
        )
        return torch.from_numpy((down[:, None] * self.grid_shape[1] + along).ravel())


def lattice_size(grid_shape: tuple[int, int], stride: int) -> int:
    """Return the points of a lattice of every `stride`-th row and column."""
    return (grid_shape[0] // stride) * (grid_shape[1] // stride)


class Chunks:
    """All points in order, `size` at a time; views, nothing is copied."""

    def __init__(self, x: Float[Tensor, "N d"], y: Float[Tensor, "N C"], size: int) -> None:
        whole = (x, y, torch.arange(len(x)))
        self.batches = [(x, y, index) for x, y, index in zip(*(torch.split(t, size) for t in whole), strict=True)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)
