"""Your own map, and maps made of maps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.spectral_maps.base import SpectralMap, checked_ratio


@dataclass(frozen=True)
class custom(SpectralMap):  # noqa: N801
    """Your own function: eigenvalues of K/n [k], descending -> ratio g(lambda)/lambda [k].

    Raises InputError when it does not return one finite number > 0 per eigenvalue.
    """

    ratio_fn: Callable[[Tensor], Tensor]

    formula: ClassVar[str] = "g = lambda * ratio_fn(lambda)"
    source: ClassVar[str] = "yours"
    bias: ClassVar[str] = "Yours."

    def __call__(self, eigenvalues: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """ratio_fn(lambda), checked."""
        return checked_ratio(self, self.ratio_fn(eigenvalues), eigenvalues)


@dataclass(frozen=True)
class chain(SpectralMap):  # noqa: N801
    """The second map applied to the spectrum that the first one makes: g = second(first(lambda))."""

    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor]

    formula: ClassVar[str] = "g = g_2(g_1(lambda))"
    source: ClassVar[str] = "composition"
    bias: ClassVar[str] = "The second map's, on the spectrum that the first one leaves."

    def __call__(self, eigenvalues: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """r_1(lambda) r_2(r_1(lambda) lambda); the second map sees its eigenvalues in descending order."""
        first = self.first(eigenvalues)
        between, order = (first * eigenvalues).sort(descending=True, stable=True)
        return first * torch.empty_like(first).index_copy(0, order, self.second(between))


@dataclass(frozen=True)
class clip(SpectralMap):  # noqa: N801
    """Another map with its ratio held in [lo, hi]: no mode is slowed or sped up by more than that.

    Raises InputError unless 0 < lo <= hi.
    """

    g: Callable[[Tensor], Tensor]
    lo: float = 1e-6
    hi: float = 1.0

    formula: ClassVar[str] = "g = lambda min(max(g_1(lambda)/lambda, lo), hi)"
    source: ClassVar[str] = "composition"
    bias: ClassVar[str] = "The given map's, with bounds."

    def __post_init__(self) -> None:
        if not 0 < self.lo <= self.hi:
            raise InputError(f"clip(lo={self.lo}, hi={self.hi}): it needs 0 < lo <= hi.")

    def __call__(self, eigenvalues: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """min(max(ratio, lo), hi)."""
        return self.g(eigenvalues).clamp(self.lo, self.hi)
