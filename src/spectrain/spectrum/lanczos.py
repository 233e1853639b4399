"""Lanczos: one vector at a time, for operators that are dear, and for densities of spectra that no eigh can reach.

Letters: n points, k modes, s steps, p probes. A is anything with shape, dtype, device and A @ V.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.spectrum.solvers import Eigenpairs, LinAlgError, Matrix, eigh_robust, random_block

_TEST_EVERY = 4  # steps between two looks at whether f(A) c still changes


def tridiagonalise(
    A: Matrix,
    start: Float[Tensor, "n"],
    steps: int,
    enough: Callable[[list[Tensor], list[Tensor]], bool] | None = None,
) -> tuple[Float[Tensor, "s"], Float[Tensor, "s"], Float[Tensor, "n s"]]:
    """alpha, beta and Q with Q^T A Q = tridiagonal(beta[:-1], alpha, beta[:-1]), with full reorthogonalisation.

    Stops early, with fewer columns, at an invariant subspace, or when `enough` of alpha and beta says so. beta[-1] is
    the norm of the residual after the last step.
    """
    steps = min(steps, start.shape[0])
    # Rows, so that every step reads one contiguous block.
    rows = start.new_empty(steps, start.shape[0])
    rows[0] = start / start.norm()
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    scale = 0.0
    for j in range(steps):
        known = rows[: j + 1]
        w = (A @ rows[j][:, None])[:, 0]
        alphas.append(w @ rows[j])
        # Twice, or orthogonality is lost as soon as the first eigenvalue has converged, and it comes back as a ghost.
        w = w - (known @ w) @ known
        w = w - (known @ w) @ known
        betas.append(w.norm())
        scale = max(scale, float(alphas[-1].abs() + betas[-1]))
        if j + 1 == steps or float(betas[-1]) <= 10 * torch.finfo(w.dtype).eps * scale:
            break
        if enough is not None and enough(alphas, betas):
            break
        rows[j + 1] = w / betas[-1]
    return torch.stack(alphas), torch.stack(betas), rows[: len(alphas)].T


def apply_function(
    A: Matrix, c: Float[Tensor, "n"], f: Callable[[Tensor], Tensor], *, max_steps: int, tolerance: float
) -> Float[Tensor, "n"]:
    """f(A) c = |c| Q f(T) e_1, T = Q^T A Q from at most `max_steps` Lanczos steps that start at c.

    f maps Ritz values (descending, float64) to numbers. Exact after n steps; stops sooner when four more steps change
    the result by at most `tolerance` of its norm. c^T f(A) c stays positive for a positive f, however few the steps.
    Raises torch.linalg.LinAlgError where A is not finite.
    Source: Druskin and Knizhnerman 1989; Saad 1992 (SIAM J. Numer. Anal. 29).
    """
    before = torch.zeros(0, dtype=torch.float64, device=c.device)

    def settled(alphas: list[Tensor], betas: list[Tensor]) -> bool:
        nonlocal before
        if len(alphas) % _TEST_EVERY:
            return False
        now = _function_of(torch.stack(alphas), torch.stack(betas), f)
        change = now.clone()
        change[: len(before)] -= before
        before = now
        return bool(change.norm() <= tolerance * now.norm())

    norm = c.norm()
    if not bool(norm > 0):
        return c
    alpha, beta, Q = tridiagonalise(A, c, max_steps, settled)
    result: Tensor = norm * (Q @ _function_of(alpha, beta, f).to(Q.dtype))
    return result


def _function_of(alpha: Tensor, beta: Tensor, f: Callable[[Tensor], Tensor]) -> Float[Tensor, "s"]:
    """f(T) e_1."""
    if not bool(torch.isfinite(alpha).all()):
        raise LinAlgError("The matrix has values that are not finite.")
    values, Y = eigh_robust(_tridiagonal(alpha, beta))
    values, Y = values.flip(0), Y.flip(1)
    return Y @ (f(values) * Y[0])


def lanczos_top_k(A: Matrix, rank: int, steps: int | None = None) -> Eigenpairs:
    """Top `rank` eigenpairs from s Lanczos steps (default 3 rank + 20) with a seeded random start.

    Residual norms are beta_s |y_s|, exact in exact arithmetic (Lanczos 1950; Parlett 1980, chapter 13). One start sees
    one vector of a repeated eigenvalue: take the block solver for spectra with multiplicities, such as those of
    symmetric data.
    """
    n = A.shape[0]
    steps = min(n, 3 * rank + 20 if steps is None else steps)
    if steps < rank:
        raise InputError(f"{steps} Lanczos steps cannot give {rank} eigenpairs; take at least {rank}.")
    alpha, beta, Q = tridiagonalise(A, random_block(n, 1, A.device)[:, 0].to(A.dtype), steps)
    values, Y = eigh_robust(_tridiagonal(alpha, beta))
    values, Y = values.flip(0)[:rank], Y.flip(1)[:, :rank]
    vectors = torch.linalg.qr(Q.double() @ Y)[0]
    return Eigenpairs(values, vectors, (beta[-1].double() * Y[-1]).abs())


@dataclass(frozen=True)
class SpectralDensity:
    """The share of eigenvalues per unit of lambda (of K/n), at `points`; `nodes` and `weights` are the quadrature's.

    weights sum to 1: sum_j weights_j f(nodes_j) estimates (1/n) trace f(K/n).
    """

    points: Float[Tensor, "grid"]
    density: Float[Tensor, "grid"]
    nodes: Float[Tensor, "q"]
    weights: Float[Tensor, "q"]

    def mean(self, f: Callable[[Tensor], Tensor]) -> float:
        """(1/n) trace f(K/n), for a function of a tensor."""
        return float((self.weights * f(self.nodes)).sum())


def spectral_density(
    K: Matrix, probes: int = 10, steps: int = 80, bins: int = 400, width: float = 0.01
) -> SpectralDensity:
    """Stochastic Lanczos quadrature of K/n: Gaussians of `width` lambda_1 around the Ritz values of random probes.

    Costs probes * steps products with K, and no n x n eigh. Source: Ubaru, Chen and Saad 2017; Ghorbani et al. 2019
    (arXiv 1901.10159).
    """
    n = K.shape[0]
    block = random_block(n, probes, K.device).to(K.dtype)
    nodes, weights = [], []
    for start in block.unbind(1):
        alpha, beta, _ = tridiagonalise(K, start, steps)
        values, Y = eigh_robust(_tridiagonal(alpha, beta))
        nodes.append(values / n)
        weights.append(Y[0].square() / probes)
    node, weight = torch.cat(nodes), torch.cat(weights)
    sigma = width * float(node.max().clamp(min=torch.finfo(torch.float64).tiny))
    points = torch.linspace(float(node.min()) - 4 * sigma, float(node.max()) + 4 * sigma, bins, dtype=torch.float64)
    gaussians = torch.exp(-((points[:, None] - node.cpu()) ** 2) / (2 * sigma**2)) / (sigma * (2 * torch.pi) ** 0.5)
    return SpectralDensity(points, gaussians @ weight.cpu(), node, weight)


def _tridiagonal(alpha: Tensor, beta: Tensor) -> Tensor:
    off = beta[: len(alpha) - 1].double()
    return torch.diag(alpha.double()) + torch.diag(off, 1) + torch.diag(off, -1)
