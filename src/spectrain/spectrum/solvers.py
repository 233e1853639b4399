"""Eigenpairs of a symmetric matrix A: dense for all of them, block Krylov for the top k.

Letters: n points, k modes asked for, b = k + a few guard modes, q columns of the Krylov basis.
Every solver returns `Eigenpairs` in float64: values [k] descending, vectors [n, k], residual norms |A v - value v| [k].
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import SpectrainWarning

LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]
_SEED = 0x5EED
_GUARD = 8
_ROWS = 1024


@dataclass(frozen=True)
class Eigenpairs:
    """values [k] descending, vectors [n, k] orthonormal, residual_norms [k]; float64."""

    values: Float[Tensor, "k"]
    vectors: Float[Tensor, "n k"]
    residual_norms: Float[Tensor, "k"]


Matmul = Callable[[Tensor], Tensor]


@runtime_checkable
class Matrix(Protocol):
    """What an iterative solver needs to know of A: a tensor has it, and `operators.Operator` too."""

    @property
    def shape(self) -> torch.Size | tuple[int, ...]: ...  # noqa: D102
    @property
    def dtype(self) -> torch.dtype: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102
    def __matmul__(self, V: Tensor, /) -> Tensor: ...


def random_block(n: int, columns: int, device: torch.device) -> Float[Tensor, "n b"]:
    """Normal numbers from a generator of its own: the same on every device and rank, the global RNG untouched."""
    generator = torch.Generator().manual_seed(_SEED)
    return torch.randn(n, columns, generator=generator, dtype=torch.float64).to(device)


def float64_matmul(A: Float[Tensor, "n n"]) -> Matmul:
    """V -> A V in float64; a lower-precision A is widened by row blocks, never copied whole."""
    if A.dtype == torch.float64:
        return lambda V: A @ V
    return lambda V: torch.cat([rows.double() @ V for rows in torch.split(A, _ROWS)])


def eigh_robust(A: Float[Tensor, "n n"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n n"]]:
    """torch.linalg.eigh in float64, ascending: on A's device, then scaled to norm one, then on the CPU.

    cuSOLVER can fail on large low-rank matrices (pytorch issues 105359, 94772), hence the three tries.
    Raises torch.linalg.LinAlgError when all fail.
    """
    A64 = A.double()
    try:
        return _checked_eigh(A64)
    except LinAlgError:
        scale = A64.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    try:
        values, vectors = _checked_eigh(A64 / scale)
    except LinAlgError:
        warnings.warn("eigh failed twice on this device; it was computed on the CPU instead.", SpectrainWarning, 2)
        values, vectors = _checked_eigh((A64 / scale).cpu())
    return values.to(A.device) * scale, vectors.to(A.device)


def _checked_eigh(A: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(A)
    if not bool(torch.isfinite(values).all() & torch.isfinite(vectors.sum())):
        raise LinAlgError("eigh returned numbers that are not finite")
    return values, vectors


def dense(A: Float[Tensor, "n n"], rank: int) -> Eigenpairs:
    """The top `rank` of all n eigenpairs, by eigh of (A + A^T)/2 in float64. O(9 n^3)."""
    A64 = A.double()
    A64 = (A64 + A64.T) / 2
    values, vectors = eigh_robust(A64)
    values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank].contiguous()
    residual_norms = torch.linalg.vector_norm(A64 @ vectors - vectors * values, dim=0)
    return Eigenpairs(values, vectors, residual_norms)


def rayleigh_ritz(matmul64: Matmul, V: Float[Tensor, "n b"], rank: int) -> Eigenpairs:
    """The best eigenpairs in the span of V, in float64, with their true residual norms: one product with A.

    Source: Parlett 1980, chapter 11.
    """
    Q, _ = torch.linalg.qr(V.double())
    AQ = matmul64(Q)
    T = Q.T @ AQ
    values, Y = eigh_robust((T + T.T) / 2)
    values, Y = values.flip(0)[:rank], Y.flip(1)[:, :rank]
    vectors = Q @ Y
    residual_norms = torch.linalg.vector_norm(AQ @ Y - vectors * values, dim=0)
    return Eigenpairs(values, vectors, residual_norms)


def block_top_k(
    A: "Matrix",
    rank: int,
    init: Float[Tensor, "n j"] | None = None,
    tolerance: float = 1e-6,
    max_passes: int = 60,
) -> Eigenpairs:
    """Top `rank` eigenpairs by block Krylov iteration with restarts, from `init` or from a seeded random block.

    One pass multiplies A with the residuals R = A V - V Lambda of the modes that are not there yet and solves the
    projected problem on [Q, R] (Rayleigh-Ritz), until every |A v - lambda v| <= tolerance * lambda_1, or `max_passes`.
    A tolerance that A's precision cannot reach is raised to 8 eps. A is anything with shape, dtype, device and A @ V.
    From a random block this is randomized block Krylov (Musco and Musco 2015, arXiv 1504.05477).
    Products run in A's own precision, the last Rayleigh-Ritz around them in float64. 2 n^2 b flops a pass at most.
    """
    n = A.shape[0]
    b = min(n, rank + _GUARD)
    # Residuals below this are rounding: their directions are random, and adding them would spoil the basis.
    tolerance = max(tolerance, 8 * torch.finfo(A.dtype).eps)
    start = random_block(n, b, A.device)
    if init is not None:
        start = torch.cat([init.double(), start], 1)[:, : max(b, init.shape[1])]
    Q = _orthonormal(start.to(A.dtype), None)
    AQ = A @ Q
    widest = min(n, 4 * b)
    for passes in range(max_passes + 1):
        values, V, R = _project(Q, AQ, b)
        norms = torch.linalg.vector_norm(R, dim=0)
        # The guard modes only help the others: they need not converge.
        late = norms[:rank] > tolerance * values[0].abs()
        if passes == max_passes or not bool(late.any()):
            break
        active = torch.cat([late, late.new_ones(norms.shape[0] - rank)])
        if Q.shape[1] + b > widest:
            # Restart from twice the block: the modes just below the guard keep most of what the Krylov basis knew.
            Q, AQ = _rotate(Q, AQ, min(2 * b, Q.shape[1]))
        fresh = _orthonormal((R / norms.clamp(min=torch.finfo(A.dtype).tiny))[:, active], Q)
        fresh = fresh[:, : n - Q.shape[1]]
        if fresh.shape[1] == 0:
            break
        Q, AQ = torch.cat([Q, fresh], 1), torch.cat([AQ, A @ fresh], 1)
    # Products in A's own precision: their rounding is the noise floor that the spectrum reports.
    return rayleigh_ritz(lambda Q: (A @ Q.to(A.dtype)).double(), V, rank)


def _project(Q: Tensor, AQ: Tensor, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ritz values [b], vectors V [n, b] and residuals A V - V Lambda [n, b], without a product with A."""
    T = (Q.T @ AQ).double()
    values, Y = eigh_robust((T + T.T) / 2)
    values = values.flip(0)[:keep].to(Q.dtype)
    Y = Y.flip(1)[:, :keep].to(Q.dtype)
    V = Q @ Y
    return values, V, AQ @ Y - V * values


def _rotate(Q: Tensor, AQ: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The best `keep` directions of the basis and their products."""
    T = (Q.T @ AQ).double()
    Y = eigh_robust((T + T.T) / 2)[1].flip(1)[:, :keep].to(Q.dtype)
    return Q @ Y, AQ @ Y


def _orthonormal(X: Tensor, Q: Tensor | None) -> Tensor:
    """Orthonormal basis of X against Q; twice is enough (Giraud and Langou 2005)."""
    for _ in range(2):
        if Q is not None:
            X = X - Q @ (Q.T @ X)
        X, _ = torch.linalg.qr(X)
    return X


def keep_basis(A: Float[Tensor, "n n"], V: Float[Tensor, "n k"]) -> Eigenpairs:
    """The last resort: the old vectors with their Rayleigh quotients and residuals on A, and a warning."""
    warnings.warn("No eigensolver converged on the new kernel: the previous basis is kept.", SpectrainWarning, 2)
    V = V.double()
    AV = float64_matmul(A)(V)
    values, order = (V * AV).sum(0).sort(descending=True)
    V, AV = V[:, order], AV[:, order]
    return Eigenpairs(values, V, torch.linalg.vector_norm(AV - V * values, dim=0))
