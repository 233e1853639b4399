"""One computation of a kernel: look, plan, compute, and once more where the data show a use that the look did not.

Legend: n, m points; C outputs, E = C for the full kernel and 1 otherwise.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spectrain.errors import InputError
from spectrain.kernels.blocks import Side, Split, compute, pass_work, smallest, split
from spectrain.kernels.capture import UnknownUseError
from spectrain.kernels.gram import Pair
from spectrain.kernels.network import Inputs, Network, rows_of
from spectrain.kernels.planning import Look, look, widened
from spectrain.kernels.progress import Progress
from spectrain.kernels.sinks import Sink


@dataclass
class Run:
    """What is asked for; `kernels` computes it for given points."""

    network: Network
    outputs: str
    rest: frozenset[str]  # parameters of the Jacobian path, as far as known
    strict: bool  # refuse parameters without a rule
    apart: bool  # a kernel per parameter
    budget: int  # bytes beyond K
    show: bool  # progress
    _seen: Look | None = field(default=None, init=False)
    _parts: bool = field(default=True, init=False)  # as for `split`

    def kernels(
        self, x1: Inputs, x2: Inputs | None, out: Tensor | None = None, first: int | None = None
    ) -> dict[str, Tensor]:
        """The kernel, or every parameter's, by name; of a symmetric one the `first` rows, or all of them."""
        probe = x1 if x2 is None or rows_of(x1) >= rows_of(x2) else x2
        while True:
            seen = self.look(probe)
            try:
                return self._compute(x1, x2, seen, out, first)
            except UnknownUseError as found:
                self.rest, self._seen = widened(self.rest, found, self.strict), None
            except torch.OutOfMemoryError as error:
                self._take_less(seen, error)

    def _take_less(self, seen: Look, error: torch.OutOfMemoryError) -> None:
        """Half of the budget, for blocks of fewer points, and no part of all points."""
        if self.budget < 2 * smallest(seen):
            raise InputError(
                "The device has no memory left for a pair of points. Use a smaller network, another device, or out= "
                "on the CPU."
            ) from error
        self._parts, self.budget = False, self.budget // 2

    def look(self, x: Inputs) -> Look:
        """The first look, at these points."""
        if self._seen is None:
            self._seen = look(self.network, x, self.outputs, self.rest, strict=self.strict, apart=self.apart)
        return self._seen

    def _compute(
        self, x1: Inputs, x2: Inputs | None, seen: Look, out: Tensor | None, first: int | None
    ) -> dict[str, Tensor]:
        """The kernel, or every parameter's, by name."""
        network, symmetric = self.network, x2 is None
        n, m = rows_of(x1), rows_of(x1 if x2 is None else x2)
        full = seen.plan.outputs == "full"
        E = seen.C if full else 1
        first = n if first is None else first
        shape = (first, m, E, E) if full else (first, m)
        like = torch.empty(0, dtype=network.dtype, device=network.device)
        keys = tuple(network.params) if seen.plan.apart else ("",)
        sinks = {key: Sink(_result(out, shape, like), E, like) for key in keys}
        per_pair = 0 if next(iter(sinks.values())).in_place() else E * E * like.element_size()
        sizes = split(seen, n, m, symmetric, self.budget, per_pair, first, self._parts)
        bar = Progress("kernel", _work(seen, n, m, symmetric, sizes, E), show=self.show)
        left = Side(network, x1, seen, sizes.pass_bytes, bar, single=sizes.single)
        right = None if x2 is None else Side(network, x2, seen, sizes.pass_bytes, bar)
        try:
            compute(left, right, sizes, sinks, bar, first)
        finally:
            bar.close()
        return {key: sink.out for key, sink in sinks.items()}


def _result(out: Tensor | None, shape: tuple[int, ...], like: Tensor) -> Tensor:
    if out is None:
        try:
            return like.new_zeros(shape)
        except torch.OutOfMemoryError as error:
            size = math.prod(shape) * like.element_size() / 2**30
            raise InputError(
                f"The kernel itself, of shape {shape}, needs {size:.3g} GiB, which the device does not have: give out= "
                "on the CPU or in a file, or take NTKOperator."
            ) from error
    if out.shape != shape:
        raise InputError(f"out has shape {tuple(out.shape)}; this kernel needs {shape}.")
    return out.zero_()


def _work(seen: Look, n: int, m: int, symmetric: bool, sizes: Split, E: int) -> float:
    """Flops, roughly, of all passes and products, for the progress line."""
    blocks = -(-n // sizes.rows)
    passes = (
        pass_work(seen, n) + pass_work(seen, m) * (blocks - 1) / 2 if symmetric else pass_work(seen, n + m * blocks)
    )
    return passes + n * m * (0.5 if symmetric else 1.0) * pair_work(seen, E)


def pair_work(seen: Look, E: int) -> float:
    """Flops, roughly, of one entry of K."""
    few = next(iter(seen.sample.values())).n
    return sum(min(Pair(f, f, False, 0).flops(E)) for f in seen.sample.values()) / few**2
