"""Maps that select or re-weight scales: heat, Sobolev, band-pass."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.spectral_maps.base import SpectralMap, cut

# Far below any ratio of use; it keeps S positive definite where exp underflows.
_SMALLEST = 1e-30
# Eigenvalues closer than this, relatively, are one eigenspace.
_TIE = 1e-6


@dataclass(frozen=True)
class heat(SpectralMap):  # noqa: N801
    """g(lambda) = lambda_1 exp(-t (lambda_1/lambda - 1)): the heat kernel, with lambda_1/lambda - 1 as the Laplacian.

    t > 0 is the diffusion time: modes with lambda << t lambda_1 are cut off exponentially (the ratio stops at 1e-30, so
    that S stays positive definite). Raises InputError unless t > 0.
    """

    t: float

    formula: ClassVar[str] = "g = lambda_1 exp(-t (lambda_1/lambda - 1))"
    source: ClassVar[str] = "diffusion kernels, Kondor and Lafferty 2002"
    bias: ClassVar[str] = "Ignores everything below the scale t: very smooth solutions."

    def __post_init__(self) -> None:
        if not self.t > 0:
            raise InputError(f"heat(t={self.t}): the diffusion time must be positive.")

    def __call__(self, eigenvalues: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """(lambda_1/lambda) exp(-t (lambda_1/lambda - 1))."""
        x = eigenvalues[0] / eigenvalues
        return (x * torch.exp(-self.t * (x - 1))).clamp(min=_SMALLEST)


@dataclass(frozen=True)
class sobolev(SpectralMap):  # noqa: N801
    """g(lambda)/lambda = ((1 + kappa^2)/(1 + kappa_cut^2))^order: re-weighting by frequency, as a Sobolev norm does.

    kappa = ((N - 1)/2)^(1/dimension), N = how many eigenvalues are >= lambda: Weyl's law, exact on the circle with all
    its frequencies. order > 0 brings fine detail forward, order < 0 holds it back. The ratio is 1 from the cut on.
    """

    order: float
    dimension: int = 1
    rank: int | None = None

    formula: ClassVar[str] = "g = lambda ((1 + kappa^2)/(1 + kappa_c^2))^order, kappa = ((N(lambda) - 1)/2)^(1/d)"
    source: ClassVar[str] = "Sobolev-norm training, Yu, Yang and Townsend 2023 (arXiv 2205.14300)"
    bias: ClassVar[str] = "order > 0: high frequencies weigh more; order < 0: less."

    def __post_init__(self) -> None:
        if self.dimension < 1 or self.order != self.order:
            raise InputError(f"sobolev(order={self.order}, dimension={self.dimension}): dimension must be at least 1.")

    def __call__(self, eigenvalues: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """((1 + kappa^2)/(1 + kappa_cut^2))^order on the head, 1 below the cut."""
        c = cut(eigenvalues, self.rank)
        head = eigenvalues.clamp(min=c)
        counts = torch.searchsorted(-eigenvalues.contiguous(), -head * (1 - _TIE), right=True)
        kappa = ((counts - 1) / 2).to(eigenvalues) ** (1 / self.dimension)
        weight = 1 + kappa**2
        return (weight / weight[-1]) ** self.order


@dataclass(frozen=True)
class bandpass(SpectralMap):  # noqa: N801
    """g(lambda) = lambda on the modes lo .. hi-1 (counted from 0), leak * lambda on the others that are known.

    An eigenspace is never split: the band is the eigenvalues between lambda_{lo+1} and lambda_{hi}. Modes beyond the k
    known ones are untouched, as for every map. Raises InputError unless 0 <= lo < hi <= k and 0 < leak < 1.
    """

    lo: int
    hi: int
    leak: float = 1e-3

    formula: ClassVar[str] = "g = lambda for modes lo <= i < hi, else leak * lambda"
    source: ClassVar[str] = "a band-pass filter on the spectrum"
    bias: ClassVar[str] = "Learns one band of scales and almost nothing else."

    def __post_init__(self) -> None:
        whole = isinstance(self.lo, int) and isinstance(self.hi, int)
        if not (whole and 0 <= self.lo < self.hi and 0 < self.leak < 1):
            raise InputError(
                f"bandpass(lo={self.lo}, hi={self.hi}, leak={self.leak}): it needs whole numbers 0 <= lo < hi and "
                "0 < leak < 1."
            )

    def __call__(self, eigenvalues: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """1 inside the band, leak outside."""
        k = eigenvalues.shape[0]
        if self.hi > k:
            raise InputError(f"bandpass(hi={self.hi}) was given {k} eigenvalues; hi must be at most {k}.")
        upper, lower = eigenvalues[self.lo] * (1 + _TIE), eigenvalues[self.hi - 1] * (1 - _TIE)
        inside = (eigenvalues <= upper) & (eigenvalues >= lower)
        return torch.where(inside, 1.0, self.leak).to(eigenvalues)
