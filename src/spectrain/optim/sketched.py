"""Many residuals: (K + c)^-1 z without K, by conjugate gradients and a randomised Nystroem sketch of K.

Legend: n residuals, P parameters, m landmarks (random residuals), c the damping.

    K ~ B B^T,  B = K[:, landmarks] L^-T,  L L^T = K[landmarks, landmarks]
    M = B B^T + c,  M^-1 v = (v - B (c + B^T B)^-1 B^T v) / c          (Woodbury)

M^-1 (K + c) is near 1 on all that the landmarks' columns hold; conjugate gradients on v -> J (J^T v) + c v make up the
rest: exact in the limit, whatever m. Memory: B twice, and no n x n matrix. Sources: Rudi, Carratino and Rosasco 2017
(arXiv 1705.10958), Frangella, Tropp and Udell 2023 (arXiv 2110.02820).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.optim.linearization import Linearization

LANDMARKS, BYTES = 2000, 2**29  # as many as these allow
TOLERANCE, ITERATIONS = 1e-6, 200


class Sketch:
    """B for one linearisation, for any damping."""

    def __init__(self, lin: Linearization, landmarks: int | None = None) -> None:
        n = len(lin.r)
        m = min(n, LANDMARKS, BYTES // (n * lin.r.element_size())) if landmarks is None else landmarks
        chosen = torch.randperm(n, generator=torch.Generator().manual_seed(n))[:m].sort().values.to(lin.r.device)
        columns = lin.columns(chosen)
        inner = columns[chosen]
        inner.diagonal().add_(m * torch.finfo(inner.dtype).eps * inner.trace())  # rounding may leave it indefinite
        L, info = torch.linalg.cholesky_ex(inner)
        self._failed = bool(info)
        self._lin = lin
        self._B = torch.linalg.solve_triangular(L, columns.T, upper=False).T
        self._inner = self._B.T @ self._B

    def solve(
        self, c: float, z: Float[Tensor, " n"], tolerance: float = TOLERANCE, iterations: int = ITERATIONS
    ) -> Float[Tensor, " n"] | None:
        """x with ``|(K + c) x - z| <= tolerance |z|``, or what so many iterations give; None if no better than 0."""
        A = self._inner.clone()
        A.diagonal().add_(c)
        L, info = torch.linalg.cholesky_ex(A)
        if self._failed or bool(info):
            return None
        x, r = torch.zeros_like(z), z.clone()
        y = self._precondition(L, c, r)
        p, ry = y.clone(), torch.dot(r, y)
        for _ in range(iterations):
            Kp = self._lin.push(self._lin.pull(p)) + c * p
            step = ry / torch.dot(p, Kp)
            x.add_(p, alpha=float(step))
            r.sub_(Kp, alpha=float(step))
            if float(r.norm()) <= tolerance * float(z.norm()):
                break
            y = self._precondition(L, c, r)
            before, ry = ry, torch.dot(r, y)
            p = y + ry / before * p
        left = z - self._lin.push(self._lin.pull(x)) - c * x  # the recurrence does not see rounding
        return x if bool(left.norm() < z.norm()) else None  # nan is no better either

    def _precondition(self, L: Tensor, c: float, v: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        inside = torch.cholesky_solve((self._B.T @ v)[:, None], L)[:, 0]
        found: Tensor = (v - self._B @ inside) / c
        return found
