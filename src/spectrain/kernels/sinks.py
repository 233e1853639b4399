"""Where blocks of a kernel are added up, and where they go.

Legend: n, m points; C outputs, E = C for the full kernel and 1 otherwise. A block is a matrix [n E, m E].
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.kernels.gram import Pair, add_gram, mirror
from spectrain.kernels.progress import Progress

_LEAST = 8  # then it is not the workspace that is too large
Pairs = Callable[[Callable[[Pair], None]], None]  # calls what it is given with every pair of a block


class Sink:
    """Where a kernel goes: [n, m] or [n, m, C, C], on any device or in a memory-mapped file."""

    def __init__(self, out: Tensor, E: int, like: Tensor) -> None:
        self.out, self._E, self._like = out, E, like

    def in_place(self) -> bool:
        """Whether blocks are added up in the result itself."""
        return self.out.ndim == 2 and self.out.dtype == self._like.dtype and self.out.device == self._like.device

    def write(self, i: slice, j: slice, pairs: Pairs, symmetric: bool, progress: Progress) -> None:
        """One block of K, the sum of the pairs' Gram matrices, and its mirror image where there is one."""
        E, n, m = self._E, i.stop - i.start, j.stop - j.start
        block = self.out[i, j] if self.in_place() else self._like.new_empty(n * E, m * E)
        _fill(block, pairs, E, progress)
        if symmetric and i == j:
            mirror(block, E)
        if not self.in_place():
            self._copy(i, j, block)
        if symmetric and i != j:
            self._copy(j, i, block.T)

    def _copy(self, i: slice, j: slice, block: Float[Tensor, "nE mE"]) -> None:
        if self.out.ndim == 2:
            self.out[i, j] = block
        else:
            E = self._E
            self.out[i, j] = block.reshape(-1, E, block.shape[1] // E, E).permute(0, 2, 1, 3)


def _fill(block: Float[Tensor, "nE mE"], pairs: Pairs, E: int, progress: Progress) -> None:
    """block = sum of the pairs' Gram matrices; out of memory, it starts again in half of the workspace, a few times."""
    shrink = 1

    def add(pair: Pair) -> None:
        add_gram(block, replace(pair, workspace=pair.workspace // shrink), E)
        progress.add(min(pair.flops(E)))

    while True:
        try:
            block.zero_()
            pairs(add)
            return
        except torch.OutOfMemoryError:
            if shrink == _LEAST:
                raise
            shrink *= 2
            if block.device.type == "cuda":
                torch.cuda.empty_cache()
