"""The kernel in blocks of rows and columns that keep everything beyond K within a budget.

Legend: n, m points; C outputs, E = C for the full kernel and 1 otherwise. K is held as a matrix [n E, m E].
"""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial

import torch

from spectrain.errors import InputError
from spectrain.kernels.capture import Factors, capture
from spectrain.kernels.checks import not_finite
from spectrain.kernels.gram import Pair, spans
from spectrain.kernels.jacobian import jacobian_factors
from spectrain.kernels.network import Inputs, Network, rows_of, take_rows
from spectrain.kernels.parts import in_parts, one_by_one
from spectrain.kernels.planning import Look
from spectrain.kernels.progress import Progress
from spectrain.kernels.sinks import Sink
from spectrain.kernels.uses import Names

# Shares of the budget: factors of the blocks at hand, one pass of the network, and room to multiply.
_KEPT, _PASS, _WORK = 0.5, 0.25, 0.25
_LEFT_SHARE = 0.75


class Side:
    """The points of one side of the kernel, and their factors, block by block."""

    def __init__(
        self,
        network: Network,
        x: Inputs,
        look: Look,
        pass_bytes: int,
        progress: Progress,
        *,
        explicit: bool = True,
        single: frozenset[Names] = frozenset(),
    ) -> None:
        self.n = rows_of(x)
        self._explicit = explicit  # whether the Jacobian of parameters without a rule is formed
        self._network, self._x, self._look, self._progress = network, x, look, progress
        self._batch = max(1, pass_bytes // max(1, look.costs.graph))
        self._kept: tuple[slice, Factors] | None = None
        self._twin: Side | None = None
        self._single = single

    def twin(self) -> "Side":
        """The same points, with a kept block of its own, which either takes over from the other."""
        twin = copy(self)
        twin._kept, twin._twin, self._twin = None, self, twin
        return twin

    def factors(self, rows: slice) -> Factors:
        """Factors of a block of points; the last block is kept."""
        if self._kept is None or self._kept[0] != rows:
            self._kept = None  # before its successor needs the memory
            other = None if self._twin is None else self._twin._kept
            self._kept = other if other is not None and other[0] == rows else (rows, self._collect(rows))
        return self._kept[1]

    def parts(self, rows: slice, take: Callable[[Factors], None]) -> None:
        """`take` gets the factors of a block, or those of all points in parts."""
        if not self._single:
            take(self.factors(rows))
            return
        x, plan = self._network.inputs(self._x), self._look.plan
        try:
            in_parts(self._network, x, plan, self._single, take)
        except FloatingPointError:
            raise not_finite(self._network, x) from None
        take(jacobian_factors(self._network, x, plan))
        self._progress.add(pass_work(self._look, self.n))

    def _collect(self, rows: slice) -> Factors:
        store: Factors = {}
        n, start = rows.stop - rows.start, rows.start
        while start < rows.stop:
            stop = min(start + self._batch, rows.stop)
            try:
                part = self._pass(slice(start, stop))
            except torch.OutOfMemoryError as error:
                self._halve(error)
                continue
            if stop - start == n:
                return part
            store = store or {names: factor.empty(n) for names, factor in part.items()}
            for names, factor in part.items():
                store[names].fill(slice(start - rows.start, stop - rows.start), factor)
            start = stop
        return store

    def _pass(self, rows: slice) -> Factors:
        x = self._network.inputs(take_rows(self._x, rows))
        plan = self._look.plan
        try:
            known = capture(self._network, x, plan) if len(plan.rest) < len(self._network.params) else {}
        except FloatingPointError:
            raise not_finite(self._network, x) from None
        factors = known | jacobian_factors(self._network, x, plan) if self._explicit else known
        self._progress.add(pass_work(self._look, rows.stop - rows.start))
        return factors

    def _halve(self, error: torch.OutOfMemoryError) -> None:
        if self._batch == 1:
            raise InputError(
                "The device has no memory left for even one point. Use a smaller network or another device."
            ) from error
        self._batch //= 2
        if self._network.device.type == "cuda":
            torch.cuda.empty_cache()


def pass_work(look: Look, n: int) -> float:
    """Flops, roughly, of one forward and the backward passes over n points."""
    positions = sum(f.sizes.positions * f.sizes.columns for f in look.sample.values())
    return 2.0 * n * positions * (1 + 2 * next(iter(look.sample.values())).C)


@dataclass(frozen=True)
class Split:
    """Sizes of the blocks of rows and of columns, and the bytes there are to work in."""

    rows: int
    columns: int
    pass_bytes: int
    workspace: int
    single: frozenset[Names] = frozenset()  # the layers of a kernel in one block that take outputs one by one


def smallest(look: Look) -> int:
    """The bytes that a pair of points needs."""
    return 2 * max(1, look.costs.factors) + look.costs.graph


def split(
    look: Look,
    n: int,
    m: int,
    symmetric: bool,
    budget: int,
    block_bytes_per_pair: int,
    first: int | None = None,
    parts: bool = True,
) -> Split:
    """Blocks that keep factors, a pass and the workspace within the budget; first: as for `compute`.

    `block_bytes_per_pair` is what a block of K itself needs per pair of points where it is not written in place;
    `parts` allows the one block of a kernel in parts.
    """
    per_point = max(1, look.costs.factors)
    if smallest(look) > budget:
        need = smallest(look) / 2**10
        raise InputError(f"memory_budget is too small: a pair of points of this network needs about {need:.0f} KiB.")
    points = int(_KEPT * budget) // per_point
    pass_bytes, workspace = int(_PASS * budget), int(_WORK * budget)
    if parts and symmetric and first in (None, n) and not block_bytes_per_pair:
        single = one_by_one(look, n, (_KEPT + _PASS) * budget)
        if single:
            return Split(n, n, pass_bytes, workspace, single)
    if points >= (n if symmetric else n + m):
        rows, columns = n, m
    else:
        rows = min(n, max(1, int(_LEFT_SHARE * points)))
        columns = rows if symmetric else min(m, max(1, points - rows))
        if symmetric:
            rows = columns = max(1, points // 2)
    if block_bytes_per_pair:
        workspace //= 2
        side = max(1, int((workspace / block_bytes_per_pair) ** 0.5))
        if rows * columns * block_bytes_per_pair > workspace:
            rows, columns = min(rows, side), min(columns, side)
    return Split(rows, columns, pass_bytes, workspace)


def compute(
    left: Side, right: Side | None, sizes: Split, sinks: Mapping[str, Sink], progress: Progress, first: int
) -> None:
    """Add the Gram matrices of all factors into their sinks, by the first name of the parameters or "" for all of them.

    right=None is the symmetric kernel; of that, the `first` rows alone, which are all of them or a part (then only what
    lies within them is mirrored).
    """
    symmetric = right is None
    other = right or left.twin()
    columns = spans(other.n, sizes.columns)
    if symmetric:
        beyond = (slice(first + j.start, first + j.stop) for j in spans(other.n - first, sizes.columns))
        columns = [*spans(first, sizes.rows), *beyond]
    for i in spans(first, sizes.rows):
        for j in columns:
            if symmetric and j.start < i.start:
                continue
            for key, sink in sinks.items():
                pairs = partial(_pairs, left, None if symmetric and i == j else other, i, j, sizes.workspace, key)
                sink.write(i, j, pairs, symmetric and j.stop <= first, progress)
        columns.reverse()  # so that the next row of blocks begins with the factors that are at hand


def _pairs(
    left: Side, right: Side | None, i: slice, j: slice, workspace: int, key: str, add: Callable[[Pair], None]
) -> None:
    """`add` gets both sides' factors of every layer, or of one parameter.

    right=None is the left side, on the diagonal.
    """

    def take(one: Factors, two: Factors) -> None:
        for names in one:  # in the order of the network, so that sums come out the same in every process
            if names in two and key in ("", names[0]):
                add(Pair(one[names], two[names], right is None, workspace))

    if right is None:
        left.parts(i, lambda part: take(part, part))
    else:
        take(left.factors(i), right.factors(j))
