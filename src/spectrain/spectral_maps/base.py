"""What a spectral map is, and where it cuts."""

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


def checked_ratio(g: object, ratio: object, eigenvalues: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
    """The ratio itself, if it is one finite number > 0 per eigenvalue; otherwise InputError."""
    if not isinstance(ratio, Tensor) or ratio.shape != eigenvalues.shape:
        given = tuple(ratio.shape) if isinstance(ratio, Tensor) else type(ratio).__name__
        raise InputError(
            f"The spectral map {g!r} returned {given} for {len(eigenvalues)} eigenvalues; it must return one "
            "ratio g(lambda)/lambda per eigenvalue, a tensor of the same shape."
        )
    if not bool((torch.isfinite(ratio) & (ratio > 0)).all()):
        raise InputError(
            f"The spectral map {g!r} returned a ratio that is not finite and positive; "
            "g(lambda)/lambda must be > 0 for every eigenvalue, or training would not converge."
        )
    return ratio
