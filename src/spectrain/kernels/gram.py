"""Gram matrices of factors, by the cheaper of two ways, in blocks that fit the workspace.

Legend: n, m points of the two sides; C outputs, E = C for the full kernel and 1 where outputs are summed (trace); T
positions, d inputs and o outputs of a layer, p = d o columns. K is held as a matrix [n E, m E].

    position Gram:  K += sum_ts (a_t . a_s) (b_t . b_s)          2 n^2 T^2 (d + E^2 o) flops
    columns:        K += G G^T, G formed a few columns at a time  2 n^2 E^2 p flops, and 2 n C T p to form G

(C in place of E^2 for the trace). A symmetric kernel takes half of the flops that go with n^2.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isqrt

from jaxtyping import Float
from torch import Tensor

from spectrain.kernels.factors import Factor

# An element-wise operation is bound by memory: its cost in flops of a matrix product, measured on CPUs, roughly.
_ELEMENTWISE_FLOPS = 40
# Of a symmetric kernel, blocks of few rows save nearly half of the work, but a GPU needs large products to be busy.
_CPU_ROWS, _GPU_ROWS = 128, 2048
# Blocks on a CPU stay in its cache: large ones cost more in page faults than small ones cost in calls. But columns are
# formed for so many of a layer's outputs at least, since thinner products run at a fraction of the rate.
_CPU_BLOCK, _CPU_CHUNK, _FEWEST_UNITS = 2**18, 2**21, 64
_MIRROR = 256


@dataclass(frozen=True)
class Pair:
    """Two sides of a Gram matrix of one layer, and the memory there is to work in."""

    left: Factor
    right: Factor
    symmetric: bool
    workspace: int  # bytes
    sign: float = 1.0

    def flops(self, E: int) -> tuple[float, float]:
        """The cost of the position Gram and of columns, of which the caller takes the cheaper."""
        one, two = self.left.sizes, self.right.sizes
        n, m, C = self.left.n, self.right.n, self.left.C
        pairs = n * m * (0.5 if self.symmetric else 1.0)
        T2 = one.positions * two.positions
        contracted = C if E == 1 else E * E
        position = pairs * T2 * (2 * (one.inputs + contracted * one.outputs) + _ELEMENTWISE_FLOPS * E * E)
        formed = n if self.symmetric else n + m
        form = 2 * formed * C * max(one.positions, two.positions) * one.columns
        return position, 2 * pairs * contracted * one.columns + form


def add_gram(K: Float[Tensor, "nE mE"], pair: Pair, E: int) -> None:
    """K += <G_left, G_right>, in place; of a symmetric K only the blocks on and above the diagonal."""
    terms = pair.left.terms()
    for (sign, left), (_, right) in zip(terms, terms if pair.symmetric else pair.right.terms(), strict=True):
        _add_term(K, replace(pair, left=left, right=right, sign=sign), E)


def _add_term(K: Float[Tensor, "nE mE"], pair: Pair, E: int) -> None:
    if not by_columns(pair, E):
        _add_positions(K, pair, E)
    else:
        for left, right in zip(pair.left.split(E == 1), pair.right.split(E == 1), strict=True):
            _add_columns(K, replace(pair, left=left, right=right), E)


def by_columns(pair: Pair, E: int) -> bool:
    """Whether columns are the cheaper way, or the only one."""
    position, columns = pair.flops(E)
    return type(pair.left) is not type(pair.right) or not pair.left.has_positions or columns < position


def mirror(K: Float[Tensor, "nE nE"], E: int) -> None:
    """Copy what is above the diagonal to below, where `add_gram` left nothing that is meant."""
    for rows, columns in stairs(K.shape[0] // E, K.shape[0] // E, _MIRROR, _MIRROR, symmetric=True):
        i, j = _wide(rows, E), _wide(columns, E)
        if i == j:
            K[i, i].copy_(K[i, i].triu() + K[i, i].triu(1).T)
        else:
            K[j, i] = K[i, j].T


def stairs(n: int, m: int, rows: int, columns: int, symmetric: bool) -> Iterator[tuple[slice, slice]]:
    """Blocks of rows and columns; of a symmetric matrix those that begin on or to the right of the diagonal."""
    for i in spans(n, rows):
        first = i.start if symmetric else 0
        for j in spans(m - first, columns):
            yield i, slice(first + j.start, first + j.stop)


def spans(n: int, size: int) -> list[slice]:
    """Consecutive slices of at most this size."""
    return [slice(a, b) for a, b in pairwise([*range(0, n, max(1, size)), n])]


def _rows(K: Tensor, n: int) -> int:
    """How many of n points to take at once."""
    return max(32, min(n // 4, 64), min(n // 8, _CPU_ROWS)) if K.device.type == "cpu" else _GPU_ROWS


def _wide(rows: slice, E: int) -> slice:
    return slice(rows.start * E, rows.stop * E)


def _add_positions(K: Float[Tensor, "nE mE"], pair: Pair, E: int) -> None:
    left, right = pair.left, pair.right
    T1, T2 = left.sizes.positions, right.sizes.positions
    numbers = T1 * T2 * (1 + 2 * E * E)  # in a block, per pair of points
    pairs = max(1, pair.workspace // (numbers * left.itemsize))
    if K.device.type == "cpu":
        pairs = max(1, min(pairs, _CPU_BLOCK // numbers))
    rows = min(_rows(K, left.n), isqrt(pairs))
    blocks = stairs(left.n, right.n, rows, pairs // rows, pair.symmetric)
    if T1 == T2 == 1:
        b1, b2 = (side.output_positions().reshape(side.n * E, -1) for side in (left, right))
        for i, j in blocks:
            bb = b1[_wide(i, E)] @ b2[_wide(j, E)].T
            _add_product(K[_wide(i, E), _wide(j, E)], left.input_gram(right, i, j)[:, 0, :, 0], bb, E, pair.sign)
        return
    for i, j in blocks:
        aa = left.input_gram(right, i, j)
        b1, b2 = left.rows(i).output_positions(), right.rows(j).output_positions()
        K[_wide(i, E), _wide(j, E)].add_(_contract(aa, b1, b2, E), alpha=pair.sign)


def _add_product(
    K: Float[Tensor, "nE mE"], aa: Float[Tensor, "n m"], bb: Float[Tensor, "nE mE"], E: int, sign: float
) -> None:
    """K += aa o bb, aa the same for all outputs."""
    if E == 1:
        K.addcmul_(aa, bb, value=sign)
    else:
        n, m = aa.shape
        K.view(n, E, m, E).addcmul_(aa.view(n, 1, m, 1), bb.view(n, E, m, E), value=sign)


def _contract(
    aa: Float[Tensor, "n T m S"], b1: Float[Tensor, "n C T o"], b2: Float[Tensor, "m C S o"], E: int
) -> Float[Tensor, "nE mE"]:
    """sum over positions t, s of aa[i, t, j, s] * (b1[i, t] . b2[j, s])."""
    (n, _, T, _), (m, _, S, _) = b1.shape, b2.shape
    if E == 1:
        b1, b2 = b1.transpose(1, 2).flatten(2).unsqueeze(1), b2.transpose(1, 2).flatten(2).unsqueeze(1)
    bb = (b1.flatten(0, 2) @ b2.flatten(0, 2).T).view(n, E, T, m, E, S)
    return bb.mul_(aa.view(n, 1, T, m, 1, S)).sum((2, 5)).view(n * E, m * E)


def _add_columns(K: Float[Tensor, "nE mE"], pair: Pair, E: int) -> None:
    left, right = pair.left, pair.right
    units = left.sizes.outputs
    unit = left.C * left.sizes.columns // units  # numbers per point
    most = pair.workspace // left.itemsize
    rows = int(max(1, most // max(1, 2 * unit)))
    for i, j in stairs(left.n, right.n, rows, rows, pair.symmetric):
        one, two = left.rows(i), right.rows(j)
        same = pair.symmetric and i == j
        points = one.n + (0 if same else two.n)
        step = most // max(1, points * unit)
        if K.device.type == "cpu":
            step = min(step, max(_CPU_CHUNK // left.itemsize // max(1, points * unit), _FEWEST_UNITS))
        step = max(1, min(step, units))
        room1 = K.new_empty(one.n * step * unit) if one.fills_room else None
        room2 = K.new_empty(two.n * step * unit) if two.fills_room and not same else None
        for q in spans(units, step):
            g1 = one.columns(q.start, q.stop, room1).reshape(one.n * E, -1)
            g2 = g1 if same else two.columns(q.start, q.stop, room2).reshape(two.n * E, -1)
            _add_products(K[_wide(i, E), _wide(j, E)], g1, g2, same, pair.sign)


def _add_products(
    K: Float[Tensor, "n m"], g1: Float[Tensor, "n p"], g2: Float[Tensor, "m p"], same: bool, sign: float
) -> None:
    if not same:
        K.addmm_(g1, g2.T, alpha=sign)
        return
    for j in spans(K.shape[1], _rows(K, K.shape[1])):  # by columns: products that are tall are faster than wide ones
        K[: j.stop, j].addmm_(g1[: j.stop], g2[j].T, alpha=sign)
