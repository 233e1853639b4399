"""Gram matrices of factors, by the cheaper of two ways, in tiles that fit the workspace.

Legend: n, m points of the two sides; C outputs, E = C for the full kernel and 1 where outputs are summed (trace); T
positions, d inputs and o outputs of a layer, p = d o columns. K is held as a matrix [n E, m E].

    position Gram:  K += sum_ts (a_t . a_s) (b_t . b_s)    2 n^2 T^2 (d + E^2 o) flops, and T^2 numbers per pair of
    points columns:        K += G G^T, G formed a few columns at a time    2 n^2 E^2 p flops, and 2 n C T p to form G
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from spectrain.kernels.factors import Factor

# An element-wise operation is bound by memory: its cost in flops of a matrix product, measured on CPUs, roughly.
_ELEMENTWISE_FLOPS = 40
# Small tiles save half of a symmetric kernel and stay in a CPU's cache; a GPU needs large ones to be busy.
_CPU_TILES, _GPU_TILE = (128, 256), 2048
_CPU_CHUNK = 2**24


@dataclass(frozen=True)
class Pair:
    """Two sides of a Gram matrix of one layer, and the memory there is to work in."""

    left: Factor
    right: Factor
    symmetric: bool
    workspace: int  # bytes

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
    position, columns = pair.flops(E)
    supported = type(pair.left) is type(pair.right) and pair.left.has_positions
    if supported and position <= columns:
        _add_positions(K, pair, E)
    else:
        for left, right in zip(pair.left.split(), pair.right.split(), strict=True):
            _add_columns(K, replace(pair, left=left, right=right), E)


def mirror(K: Float[Tensor, "nE nE"], E: int) -> None:
    """Copy what is above the diagonal to below, where `add_gram` left nothing that is meant."""
    for i, j in tiles(K.shape[0] // E, K.shape[0] // E, _tile(K), symmetric=True):
        block = K[_wide(i, E), _wide(j, E)]
        if i == j:
            block.copy_(block.triu() + block.triu(1).T)
        else:
            K[_wide(j, E), _wide(i, E)] = block.T


def tiles(n: int, m: int, size: int, symmetric: bool) -> Iterator[tuple[slice, slice]]:
    """Blocks of rows and columns; of a symmetric matrix those on and above the diagonal."""
    for i in spans(n, size):
        for j in spans(m, size):
            if not symmetric or j.start >= i.start:
                yield i, j


def spans(n: int, size: int) -> list[slice]:
    """Consecutive slices of at most this size."""
    return [slice(a, b) for a, b in pairwise([*range(0, n, max(1, size)), n])]


def _tile(K: Tensor, symmetric: bool = True) -> int:
    return _CPU_TILES[K.shape[0] > 1024 or not symmetric] if K.device.type == "cpu" else _GPU_TILE


def _wide(rows: slice, E: int) -> slice:
    return slice(rows.start * E, rows.stop * E)


def _add_positions(K: Float[Tensor, "nE mE"], pair: Pair, E: int) -> None:
    left, right = pair.left, pair.right
    T1, T2 = left.sizes.positions, right.sizes.positions
    per_pair = T1 * T2 * (1 + 2 * E * E) * left.itemsize
    size = int(min(_tile(K, pair.symmetric), max(1.0, (pair.workspace / per_pair) ** 0.5)))
    for i, j in tiles(left.n, right.n, size, pair.symmetric):
        one, two = left.rows(i), right.rows(j)
        aa = one.input_gram(two)
        b1, b2 = one.output_positions(), two.output_positions()
        if T1 == T2 == 1:
            bb = b1.reshape(one.n * E, -1) @ b2.reshape(two.n * E, -1).T
            block = K[_wide(i, E), _wide(j, E)]
            block.view(one.n, E, two.n, E).addcmul_(aa.view(one.n, 1, two.n, 1), bb.view(one.n, E, two.n, E))
        else:
            K[_wide(i, E), _wide(j, E)] += _contract(aa, b1, b2, E)


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
    unit_bytes = left.C * left.sizes.columns // units * left.itemsize
    # Fresh large buffers cost a CPU more in page faults than small chunks cost in calls.
    workspace = min(pair.workspace, _CPU_CHUNK) if K.device.type == "cpu" else pair.workspace
    rows = int(max(1, pair.workspace // max(1, 2 * unit_bytes)))
    for i, j in tiles(left.n, right.n, rows, pair.symmetric):
        one, two = left.rows(i), right.rows(j)
        same = pair.symmetric and i == j
        step = int(max(1, workspace // max(1, (one.n + (0 if same else two.n)) * unit_bytes)))
        for q in spans(units, min(step, units)):
            g1 = one.columns(q.start, q.stop).reshape(one.n * E, -1)
            g2 = g1 if same else two.columns(q.start, q.stop).reshape(two.n * E, -1)
            _add_products(K[_wide(i, E), _wide(j, E)], g1, g2, same)


def _add_products(K: Float[Tensor, "n m"], g1: Float[Tensor, "n p"], g2: Float[Tensor, "m p"], same: bool) -> None:
    for i, j in tiles(g1.shape[0], g2.shape[0], _tile(K), same):
        K[i, j].addmm_(g1[i], g2[j].T)
