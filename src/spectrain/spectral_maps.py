"""Spectral maps: which spectrum the modified kernel has, as the ratio g(lambda)/lambda.

Letters: k modes. A map is called with the eigenvalues of K/n [k], descending, and returns the ratio [k] > 0.
`rank=r` cuts at lambda_{r+1}: the r modes above it are the head. `rank=None` cuts at the smallest eigenvalue given.
One more map is one more small class; configurations name it by its import path.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError


class SpectralMap:
    """A pure function from eigenvalues of K/n [k], descending, to the ratio g(lambda)/lambda [k] > 0."""

    formula: ClassVar[str]
    source: ClassVar[str]
    bias: ClassVar[str]

    def __call__(self, eigenvalues: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """g(lambda)/lambda."""
        raise NotImplementedError


def cut(eigenvalues: Float[Tensor, "k"], rank: int | None) -> Float[Tensor, ""]:
    """lambda_{rank+1}, or the smallest eigenvalue when rank is None. Raises InputError unless 1 <= rank < k."""
    k = eigenvalues.shape[0]
    if rank is None:
        return eigenvalues[-1]
    if not 1 <= rank < k:
        raise InputError(
            f"The spectral map cuts at rank={rank}, but it needs 1 <= rank < {k}, the number of modes "
            "known. Give a smaller rank, or compute more modes (spectrum.rank)."
        )
    return eigenvalues[rank]


@dataclass(frozen=True)
class identity(SpectralMap):  # noqa: N801
    """g(lambda) = lambda: the kernel as it is."""

    formula: ClassVar[str] = "g(lambda) = lambda"
    source: ClassVar[str] = "plain gradient descent"
    bias: ClassVar[str] = "Smooth components first: the network's own spectral bias."

    def __call__(self, eigenvalues: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """1."""
        return torch.ones_like(eigenvalues)


@dataclass(frozen=True)
class power(SpectralMap):  # noqa: N801
    """g(lambda)/lambda = (max(lambda, c)/c)^-alpha, c = lambda_{rank+1}. alpha = 1/2: the square-root map.

    alpha in [0, 1]: 0 is the identity, 1 is `flatten`. Raises InputError otherwise.
    """

    alpha: float = 0.5
    rank: int | None = None

    formula: ClassVar[str] = "g(lambda) = lambda (lambda/lambda_{r+1})^-alpha for lambda > lambda_{r+1}, else lambda"
    source: ClassVar[str] = "EigenPro 2 (Ma and Belkin 2019) uses alpha = .95; alpha = .5 suits adaptive optimizers"
    bias: ClassVar[str] = "Fine detail sooner, and coarse structure still first."

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InputError(f"power(alpha={self.alpha}): alpha must be between 0 (identity) and 1 (flatten).")

    def __call__(self, eigenvalues: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """(max(lambda, c)/c)^-alpha."""
        c = cut(eigenvalues, self.rank)
        return (eigenvalues.clamp(min=c) / c) ** -self.alpha


@dataclass(frozen=True)
class flatten(SpectralMap):  # noqa: N801
    """g(lambda) = min(lambda, lambda_{rank+1}): all modes of the head are learned at one speed."""

    rank: int | None = None

    formula: ClassVar[str] = "g(lambda) = min(lambda, lambda_{r+1})"
    source: ClassVar[str] = "Geifman et al. 2024 (arXiv 2307.14531)"
    bias: ClassVar[str] = "All scales of the head at once: no preference for smooth over fine, noise included."

    def __call__(self, eigenvalues: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """min(1, c/lambda)."""
        c = cut(eigenvalues, self.rank)
        return c / eigenvalues.clamp(min=c)
