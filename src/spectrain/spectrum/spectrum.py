"""The spectrum of K/n: eigenvalues that carry their proof.

Letters: n points, k modes. Eigenvalues are of K/n everywhere: they converge to those of the integral operator, and stay
comparable between subsets of different sizes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.spectral_maps import checked_ratio
from spectrain.spectrum import solvers
from spectrain.spectrum.lanczos import lanczos_top_k

_DENSE_UP_TO = 256
# Where the modes are more than this part of the points, all of them by eigh cost less than a Krylov basis from scratch,
# most of all on a flat kernel: 128 of 576 in .05 s against .15 to .25 s. From the last basis one pass is cheaper still.
_COLD, _WARM = 6, 4


@dataclass(frozen=True)
class Spectrum:
    """The top k eigenpairs of K/n, K = V diag(n lambda) V^T + the rest.

    eigenvalues [k] descending and eigenvectors [n, k] with orthonormal columns, float64. residual_norms [k] is
    |K/n v - lambda v|: the true spectrum has an eigenvalue at most that far from lambda. noise_floor (same units) is
    what rounding K to its own precision can make of a zero eigenvalue: eps * lambda_1, or more when K has a negative
    eigenvalue. trace is trace(K)/n, nan when it is unknown.
    """

    eigenvalues: Float[Tensor, "k"]
    eigenvectors: Float[Tensor, "n k"]
    residual_norms: Float[Tensor, "k"]
    noise_floor: float
    trace: float = math.nan

    @property
    def n(self) -> int:
        """Number of points."""
        return self.eigenvectors.shape[0]

    @property
    def rank(self) -> int:
        """Number of modes held, k."""
        return self.eigenvalues.shape[0]

    @property
    def resolved(self) -> int:
        """How many leading modes stand above the noise floor and above their own residual."""
        known = self.eigenvalues > self.residual_norms.clamp(min=self.noise_floor)
        return int(known.long().cumprod(0).sum())

    @classmethod
    def from_kernel(
        cls,
        K: Float[Tensor, "n n"],
        rank: int | None = None,
        init: Float[Tensor, "n j"] | None = None,
        *,
        tolerance: float = 1e-6,
        max_passes: int = 60,
    ) -> "Spectrum":
        """Top `rank` eigenpairs of K/n (all of them when rank is None).

        Dense eigh in float64 when rank is None, n is small, or rank is a large part of n (above a sixth; with `init`, a
        quarter); otherwise block Krylov, warm from `init` (the eigenvectors of the last spectrum), until
        |K/n v - lambda v| <= tolerance * lambda_1.
        Deterministic; the global random state is untouched. If every eigensolver fails and `init` was given, the old
        basis is kept, with the Rayleigh quotients and residuals it has on this K, and a warning says so.

        Raises InputError when K is not a square, finite, symmetric, positive semi-definite matrix of at least two
        points, when rank is not in 1..n, or when init does not have n rows.
        """
        rank = _checked_rank(K, rank, init)
        n = K.shape[0]
        eps = torch.finfo(K.dtype).eps
        # Solved for K and divided afterwards: K / n would be one more n x n matrix.
        pairs = _solve(K if K.dtype in (torch.float32, torch.float64) else K.float(), rank, init, tolerance, max_passes)
        values = pairs.values / n
        top, lowest = float(values[0].clamp(min=0)), float(values[-1])
        # A float64 matrix may hold a float32 kernel: its negative eigenvalues raise the noise floor, and are no error.
        _check_not_negative(lowest, top, n * max(eps, torch.finfo(torch.float32).eps))
        return cls(
            eigenvalues=values.clamp(min=0),
            eigenvectors=pairs.vectors,
            residual_norms=pairs.residual_norms / n,
            noise_floor=max(eps * top, -lowest),
            trace=float(K.diagonal().double().mean()),
        )

    @classmethod
    def from_operator(
        cls,
        A: solvers.Matrix,
        rank: int,
        init: Float[Tensor, "n j"] | None = None,
        *,
        tolerance: float = 1e-6,
        max_passes: int = 60,
        method: Literal["block", "lanczos"] = "block",
    ) -> "Spectrum":
        """Top `rank` eigenpairs of K/n from products with K alone: A has shape, dtype, device and A @ V (`Operator`).

        "block" (block Krylov, warm from `init`) handles repeated eigenvalues; "lanczos" takes one vector at a time, for
        products that cost the same per vector, and no `init`. The trace is nan unless A has `diagonal()`. Raises
        InputError for a rank outside 1..n or products that are not finite.
        """
        n = A.shape[0]
        if not 1 <= rank <= n or n < 2:
            raise InputError(f"rank={rank} was given for an operator of {n} points; it must be between 1 and {n}.")
        if method not in ("block", "lanczos"):
            raise InputError(f"method={method!r} is not known; it must be 'block' or 'lanczos'.")
        if not bool(torch.isfinite(A @ solvers.random_block(n, 1, A.device).to(A.dtype)).all()):
            raise InputError("The operator's products have values that are not finite. Check the inputs.")
        if method == "lanczos":
            pairs = lanczos_top_k(A, rank)
        else:
            pairs = solvers.block_top_k(A, rank, init, tolerance, max_passes)
        values = pairs.values / n
        noise_floor = torch.finfo(A.dtype).eps * float(values[0].clamp(min=0))
        diagonal = getattr(A, "diagonal", None)
        trace = math.nan if diagonal is None else float(diagonal().double().mean())
        return cls(values.clamp(min=0), pairs.vectors, pairs.residual_norms / n, noise_floor, trace)

    def ratio(self, g: Callable[[Tensor], Tensor]) -> Float[Tensor, "k"]:
        """g(lambda)/lambda on the resolved modes, exactly 1 on the others: an unresolved mode is never touched.

        The map sees all k eigenvalues, the unresolved ones replaced by the smallest resolved, so that a rank or a cut
        means the same whether or not the tail is resolved. Raises InputError unless it returns [k] finite numbers > 0.
        """
        resolved = self.resolved
        ones = torch.ones_like(self.eigenvalues)
        if resolved == 0:
            return ones
        eigenvalues = self.eigenvalues.clamp(min=self.eigenvalues[resolved - 1])
        ratio = checked_ratio(g, g(eigenvalues), eigenvalues)
        return torch.where(torch.arange(self.rank, device=ones.device) < resolved, ratio.to(ones), ones)

    def __str__(self) -> str:
        top, last = float(self.eigenvalues[0]), float(self.eigenvalues[-1])
        worst = float(self.residual_norms.max())
        text = (
            f"Top {self.rank} of {self.n} eigenvalues of K/n: {top:.3e} .. {last:.3e}, residuals up to {worst:.1e}. "
            f"Noise floor {self.noise_floor:.1e}: "
        )
        if self.resolved == self.rank:
            return text + "all modes are resolved."
        rest = self.rank - self.resolved
        return text + f"the first {self.resolved} modes are resolved, the other {rest} are not and no map touches them."

    def state_dict(self) -> dict[str, Tensor | float]:
        """Tensors and floats only, so that a checkpoint loads with weights_only=True."""
        return {
            "eigenvalues": self.eigenvalues,
            "eigenvectors": self.eigenvectors,
            "residual_norms": self.residual_norms,
            "noise_floor": self.noise_floor,
            "trace": self.trace,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "Spectrum":
        """The inverse of `state_dict`."""
        return cls(**state)


def dense_pays(n: int, rank: int, init: Tensor | None) -> bool:
    """Whether all n eigenpairs by eigh cost less than the top `rank` by block Krylov iteration, from `init` or not."""
    return n <= _DENSE_UP_TO or (_COLD if init is None else _WARM) * rank > n


def _solve(A: Tensor, rank: int, init: Tensor | None, tolerance: float, max_passes: int) -> solvers.Eigenpairs:
    n = A.shape[0]
    try:
        if dense_pays(n, rank, init):
            return solvers.dense(A, rank)
        return solvers.block_top_k(A, rank, init, tolerance, max_passes)
    except solvers.LinAlgError as error:
        if init is None or init.shape[1] < rank:
            raise InputError(
                f"No eigensolver converged on this kernel matrix ({error}). Try float64, or a smaller rank."
            ) from error
        return solvers.keep_basis(A, init[:, :rank])


def _checked_rank(K: Tensor, rank: int | None, init: Tensor | None) -> int:
    if K.ndim != 2 or K.shape[0] != K.shape[1] or K.shape[0] < 2 or not K.is_floating_point():
        raise InputError(
            f"A kernel matrix must be a square floating-point matrix of at least two points, but it is "
            f"{K.dtype} of shape {tuple(K.shape)}."
        )
    n = K.shape[0]
    rank = n if rank is None else rank
    if not 1 <= rank <= n:
        raise InputError(f"rank={rank} was given for a kernel of {n} points; it must be between 1 and {n}.")
    if init is not None and (init.ndim != 2 or init.shape[0] != n):
        raise InputError(
            f"init has shape {tuple(init.shape)}, but the kernel has {n} points; give the eigenvectors "
            f"[{n}, k] of an earlier spectrum of the same points, or None."
        )
    # One random probe instead of K - K^T and isfinite(K): two passes over memory, and no copy of an n x n matrix.
    probe = solvers.random_block(n, 1, K.device).to(K.dtype)
    right, left = K @ probe, K.T @ probe
    if not bool(torch.isfinite(right).all()):
        raise InputError("The kernel matrix has values that are not finite. Check the inputs and the outputs.")
    gap = float((right - left).norm() / right.norm().clamp(min=torch.finfo(K.dtype).tiny))
    if gap > torch.finfo(K.dtype).eps ** 0.5:
        raise InputError(
            f"The kernel matrix is not symmetric (relative difference about {gap:.1e}). Was it computed "
            "between two different sets of points?"
        )
    return rank


def _check_not_negative(lowest: float, top: float, rounding: float) -> None:
    if lowest < -min(rounding, 0.1) * top:
        raise InputError(
            f"The kernel matrix has the eigenvalue {lowest:.2e} (of K/n, the largest is {top:.2e}), which rounding "
            "cannot explain: it is not positive semi-definite. Check the kernel function, or compute it in float64."
        )
