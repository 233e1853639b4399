"""Maps that reshape the head of the spectrum relative to a cut c = lambda_{rank+1}, or to a damping mu."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.spectral_maps.base import SpectralMap, cut


@dataclass(frozen=True)
class identity(SpectralMap):  # noqa: N801
    """g(lambda) = lambda: the kernel as it is."""

    formula: ClassVar[str] = "g = lambda"
    source: ClassVar[str] = "plain gradient descent"
    bias: ClassVar[str] = "Smooth components first: the network's own spectral bias."

    def __call__(self, eigenvalues: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """1."""
        return torch.ones_like(eigenvalues)


@dataclass(frozen=True)
class flatten(SpectralMap):  # noqa: N801
    """g(lambda) = min(lambda, lambda_{rank+1}): all modes of the head are learned at one speed."""

    rank: int | None = None

    formula: ClassVar[str] = "g = min(lambda, c)"
    source: ClassVar[str] = "Geifman et al. 2024 (arXiv 2307.14531)"
    bias: ClassVar[str] = "All scales of the head at once: no preference for smooth over fine, noise included."

    def __call__(self, eigenvalues: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """min(1, c/lambda)."""
        c = cut(eigenvalues, self.rank)
        return c / eigenvalues.clamp(min=c)


@dataclass(frozen=True)
class power(SpectralMap):  # noqa: N801
    """g(lambda)/lambda = (max(lambda, c)/c)^-alpha. alpha = 1/2: the square-root map.

    alpha in [0, 1]: 0 is the identity, 1 is `flatten`. Raises InputError otherwise.
    """

    alpha: float = 0.5
    rank: int | None = None

    formula: ClassVar[str] = "g = lambda (max(lambda, c)/c)^-alpha"
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
class raise_head(SpectralMap):  # noqa: N801
    """g(lambda)/lambda = (max(lambda, c)/c)^alpha, alpha > 0: power's opposite.

    alpha = 1/2 gives lambda^1.5 on the head. The ratio is above 1: the stable step size shrinks by the ratio of the
    first mode. Raises InputError if alpha <= 0.
    """

    alpha: float = 0.5
    rank: int | None = None

    formula: ClassVar[str] = "g = lambda (max(lambda, c)/c)^alpha"
    source: ClassVar[str] = "Geifman et al. 2024 (arXiv 2307.14531) use g = lambda^1.5 as an example"
    bias: ClassVar[str] = "Smoother for longer: detail and noise come later than under the kernel itself."

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise InputError(f"raise_head(alpha={self.alpha}): alpha must be positive; use power to lower the head.")

    def __call__(self, eigenvalues: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """(max(lambda, c)/c)^alpha."""
        c = cut(eigenvalues, self.rank)
        return (eigenvalues.clamp(min=c) / c) ** self.alpha


@dataclass(frozen=True)
class ridge(SpectralMap):  # noqa: N801
    """g(lambda)/lambda = (mu/(lambda + mu))^alpha: damped Gauss-Newton (alpha = 1), without a sharp cut.

    mu > 0 in the units of the eigenvalues of K/n, or of lambda_1 with `relative=True`. Modes far above mu are
    flattened, modes far below are left alone. Raises InputError unless mu > 0 and 0 < alpha <= 1.
    """

    mu: float
    alpha: float = 1.0
    relative: bool = False

    formula: ClassVar[str] = "g = lambda (mu/(lambda + mu))^alpha"
    source: ClassVar[str] = (
        "Levenberg 1944, Marquardt 1963; in function space: energy natural gradient (Mueller and Zeinhofer 2023)"
    )
    bias: ClassVar[str] = "Everything above the scale mu at one speed, everything below it as slowly as before."

    def __post_init__(self) -> None:
        if not (self.mu > 0 and 0 < self.alpha <= 1):
            raise InputError(f"ridge(mu={self.mu}, alpha={self.alpha}): mu must be positive and alpha in (0, 1].")

    def __call__(self, eigenvalues: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """(mu/(lambda + mu))^alpha."""
        mu = self.mu * eigenvalues[0] if self.relative else self.mu
        return (mu / (eigenvalues + mu)) ** self.alpha
