"""The kernel of one batch, in the cheapest form in which it can be multiplied with a vector.

Legend: n points of a batch, m landmarks among them, C outputs, P parameters. Eigenvalues here are of K itself.
"""

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from spectrain.kernels.capture import Factors
from spectrain.kernels.gram import Pair, add_gram, mirror
from spectrain.preconditioners import ranks
from spectrain.spectrum.operators import Operator
from spectrain.spectrum.solvers import LinAlgError, Matrix

# A constant, not a share of what is free: sums in other blocks would round otherwise in a resumed run.
_WORKSPACE = 2**27


def batch_kernel(factors: Factors, landmarks: int | None) -> Matrix:
    """K = J J^T of the batch as a matrix or an operator.

    With no more parameters than points it is J itself. Otherwise, with fewer `landmarks` than points, the Nystroem
    approximation ``K_nm K_mm^-1 K_mn``, which is never larger than K (Williams and Seeger 2001); or all of K.
    """
    n = next(iter(factors.values())).n
    if sum(factor.C * factor.sizes.columns for factor in factors.values()) <= n:
        columns = [factor.columns(0, factor.sizes.outputs).flatten(1) for factor in factors.values()]
        return from_root(torch.cat(columns, 1))
    if landmarks is None or landmarks >= n:
        return gram(factors)
    rows = chosen_rows(n, landmarks).to(next(iter(factors.values())).tensors()[0].device)
    return from_root(nystrom_root(gram(factors, rows), rows))


def gathered(factors: Factors, shared: bool) -> Factors:
    """The factors of the global batch, in the order of one process."""
    if not shared:
        return factors
    return {
        names: factor.like([ranks.interleaved(t, shared)[0] for t in factor.tensors()])
        for names, factor in factors.items()
    }


def reserve(factors: Factors, shared: bool) -> bool:
    """Fail here, before any collective, where what `gathered` makes does not fit."""
    if shared:
        _ = [t.new_empty(ranks.count(shared), 2, *t.shape) for f in factors.values() for t in f.tensors()]
    return True


def chosen_rows(n: int, m: int) -> Integer[Tensor, " m"]:
    """m of n rows: at random, since a batch may be in order, and always the same ones, so that none is remembered."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))[:m]


def gram(factors: Factors, rows: Integer[Tensor, " m"] | None = None) -> Float[Tensor, "n m"]:
    """K, or the columns `rows` of it: sum over layers of (A A^T + 1) o (B B^T)."""
    first = next(iter(factors.values()))
    K = first.tensors()[-1].new_zeros(first.n, first.n if rows is None else len(rows))
    for factor in factors.values():
        other = factor if rows is None else factor.like([t[rows] for t in factor.tensors()])
        add_gram(K, Pair(factor, other, rows is None, _WORKSPACE), 1)
    if rows is None:
        mirror(K, 1)
    return K


def nystrom_root(columns: Float[Tensor, "n m"], rows: Integer[Tensor, " m"]) -> Float[Tensor, "n m"]:
    """V with ``V V^T = K_nm (K_mm + shift)^-1 K_mn``, the shift at the rounding of K_mm, or as much as it takes.

    Raises torch.linalg.LinAlgError for a kernel that is not finite.
    """
    W = columns[rows].double()
    W = (W + W.T) / 2
    trace = W.trace()
    if not bool(torch.isfinite(W).all()):
        raise LinAlgError("the kernel of the batch is not finite")
    shift = torch.finfo(columns.dtype).eps * trace
    while True:
        L, info = torch.linalg.cholesky_ex(W + shift * torch.eye(len(W), dtype=W.dtype, device=W.device))
        if not bool(info):
            root: Tensor = torch.linalg.solve_triangular(L.T.to(columns.dtype), columns, upper=True, left=False)
            return root
        if not bool(shift < trace):
            raise LinAlgError("the kernel of the batch is not positive semi-definite")
        shift = 10 * shift


def from_root(V: Float[Tensor, "n q"]) -> Operator:
    """K = V V^T, never formed."""
    return Operator(lambda X: V @ (V.T @ X), V.shape[0], V.dtype, V.device)
