"""How far a spectrum has moved.

Letters: n points, k modes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.spectrum.spectrum import Spectrum


@dataclass(frozen=True)
class Drift:
    """angles [r]: principal angles between the top r subspaces in radians, ascending.

    eigenvalues [r]: new_i / old_i - 1. subspace: |sin(angles)| / sqrt(r), 0 for equal subspaces, 1 for orthogonal ones.
    """

    angles: Float[Tensor, "r"]
    eigenvalues: Float[Tensor, "r"]
    subspace: float


def drift(old: Spectrum, new: Spectrum, rank: int | None = None) -> Drift:
    """Principal angles of the top `rank` subspaces (default: all resolved in both) and relative eigenvalue changes.

    From the sines (singular values of V_new - V_old V_old^T V_new), which small angles need (Knyazev and
    Argentati 2002). Raises InputError when the spectra belong to different points or the rank is not resolved.
    """
    resolved = min(old.resolved, new.resolved)
    r = resolved if rank is None else rank
    if old.n != new.n:
        raise InputError(f"The spectra belong to {old.n} and {new.n} points; their modes cannot be compared.")
    if not 1 <= r <= resolved:
        raise InputError(f"rank={r} was asked for, but {resolved} modes are resolved in both spectra.")
    V, W = old.eigenvectors[:, :r], new.eigenvectors[:, :r].to(old.eigenvectors)
    cosines = torch.linalg.svdvals(V.T @ W).clamp(max=1)  # descending
    sines = torch.linalg.svdvals(W - V @ (V.T @ W)).flip(0).clamp(max=1)  # ascending
    angles = torch.where(sines < 0.7, sines.asin(), cosines.acos())
    change = new.eigenvalues[:r].to(old.eigenvalues) / old.eigenvalues[:r] - 1
    return Drift(angles, change, float(sines.square().mean().sqrt()))
