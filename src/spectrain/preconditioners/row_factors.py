"""S on the rows of a batch, without ever forming it; the batch may be shared over the ranks of torch.distributed.

Shapes: r rows of a batch (n points, or n C pairs of point and output), C outputs, k modes, q columns.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.preconditioners import ranks
from spectrain.preconditioners.orthonormal import safe_cholesky


@dataclass(frozen=True)
class RowFactors:
    """``S = I - left L^-T diag(removed) L^-1 right^T``; L = None stands for the identity.

    Where it is `shared`, left, right and c are this rank's rows of those of the whole batch.
    """

    left: Float[Tensor, "r k"]
    right: Float[Tensor, "r k"]
    removed: Float[Tensor, " k"]  # 1 - ratio
    L: Float[Tensor, "k k"] | None = None
    shared: bool = False

    def apply(self, c: Float[Tensor, "r q"], strength: float) -> Float[Tensor, "r q"]:
        """``(1 - strength) c + strength S c``, O(r k q)."""
        t = ranks.total(self.right.T @ c, self.shared)
        if self.L is not None:
            t = torch.linalg.solve_triangular(self.L, t, upper=False)
        t = self.removed[:, None] * t
        if self.L is not None:
            t = torch.linalg.solve_triangular(self.L.T, t, upper=True)
        return torch.addmm(c, self.left, t, alpha=-strength)


def row_factors(rows: Float[Tensor, "r k"], ratio: Float[Tensor, " k"], shared: bool = False) -> RowFactors:
    """``S = I - Q diag(1 - ratio) Q^T``, Q the rows orthonormalised in the order of the modes.

    With ``rows^T rows = L L^T``, ``Q = rows L^-T``, which is never formed. A batch with fewer rows than modes, or rows
    that are nearly dependent, takes Q from a QR decomposition.
    """
    L = safe_cholesky(rows, shared)
    if L is not None:
        return RowFactors(rows, rows, 1 - ratio, L, shared)
    whole, mine = ranks.all_rows(rows, shared)
    Q, _ = torch.linalg.qr(whole)
    return RowFactors(Q[mine], Q[mine], 1 - ratio[: Q.shape[1]], shared=shared)


def curved_factors(
    rows: Float[Tensor, "r k"], H: Float[Tensor, "n C C"], ratio: Float[Tensor, " k"], shared: bool = False
) -> RowFactors:
    """``S_H = I - H Z L^-T diag(1 - ratio) L^-1 Z^T`` with ``Z^T H Z = L L^T`` and Z = rows; see `output_modes`.

    Its eigenvalues are 1 and those of ``I - diag(1 - ratio) L^-1 Z^T H Z L^-T``, the ratios: positive. H fades where
    predictions become certain, so a little is added to ``Z^T H Z``; that moves the ratios towards 1, not below.
    """
    Z = rows.double()
    HZ = (H.double() @ Z.reshape(len(H), H.shape[1], -1)).reshape(Z.shape)
    gram = ranks.total(Z.T @ HZ, shared)
    squares, top = ranks.total(Z.square().sum(0), shared), ranks.largest(H.abs().max(), shared)
    rounding = 1e-12 * squares * top + torch.finfo(torch.float32).tiny
    gram = (gram + gram.T) / 2 + torch.diag(1e-8 * gram.diagonal().clamp(min=0) + rounding)
    return RowFactors(HZ.to(rows), rows, 1 - ratio, torch.linalg.cholesky(gram).to(rows), shared)
