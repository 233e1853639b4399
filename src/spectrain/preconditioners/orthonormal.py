"""Orthonormal columns in their order, by Cholesky where that is safe.

Shapes: n rows, k columns, q = min(n, k).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.preconditioners import ranks

_BLOCK = 64


def orthonormal_columns(rows: Float[Tensor, "n k"]) -> Float[Tensor, "n q"]:
    """Gram-Schmidt of the columns in their order, q = min(n, k)."""
    L = safe_cholesky(rows)
    Q: Tensor
    if L is None:
        Q, _ = torch.linalg.qr(rows)
    else:
        Q = torch.linalg.solve_triangular(L.T, rows, upper=True, left=False)
    return Q


def orthonormal_images(
    values: Float[Tensor, "m k"], gram: Float[Tensor, "k k"], image: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> Float[Tensor, "n q"]:
    """`image` of Gram-Schmidt of the columns, where a linear `image` has n >> m rows and `gram` are its inner products.

    The columns become orthonormal while they are short: ``image(values L^-T)`` with ``gram = L L^T``, of which only the
    image is in `dtype`.
    """
    L = _safe_factor(gram)
    if L is None:
        return orthonormal_columns(image(values)).to(dtype)
    return image(torch.linalg.solve_triangular(L.T, values, upper=True, left=False).to(dtype))


def safe_cholesky(rows: Float[Tensor, "n k"], shared: bool = False) -> Tensor | None:
    """L with ``rows^T rows = L L^T``, of all ranks' rows where they are `shared`, or None where that loses digits.

    It squares the condition number, which eigenvectors restricted to n >> k rows keep near 1, and is several times
    faster than QR.
    """
    n, k = rows.shape
    if shared:
        n = int(ranks.total(torch.tensor(n, device=rows.device), shared))
    if n < 4 * k:
        return None
    return _safe_factor(ranks.total(_lower_gram(rows), shared))


def _safe_factor(gram: Float[Tensor, "k k"]) -> Tensor | None:
    """Its Cholesky factor, or None.

    ``diag(L)`` over the column norms is the part of each column that is new; 0.1 bounds the loss to two digits.
    """
    L, info = torch.linalg.cholesky_ex(gram)
    safe = not bool(info) and bool((L.diagonal() > 0.1 * gram.diagonal().sqrt()).all())
    return L if safe else None


def _lower_gram(rows: Tensor) -> Tensor:
    """``rows^T rows``, of which Cholesky reads the lower triangle: blocks of columns save a third of the work."""
    k = rows.shape[1]
    if k <= _BLOCK or rows.is_cuda:
        return rows.T @ rows
    gram = rows.new_zeros(k, k)
    for i in range(0, k, _BLOCK):
        gram[i : i + _BLOCK, : i + _BLOCK] = rows[:, i : i + _BLOCK].T @ rows[:, : i + _BLOCK]
    return gram
