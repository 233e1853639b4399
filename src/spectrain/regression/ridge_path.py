"""The whole ridge path of kernel regression from one eigendecomposition, with closed-form errors.

Letters: n points, C outputs, p ridges. Eigenvalues and ridges are of K/n.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.spectrum import Spectrum


@dataclass(frozen=True)
class RidgePath:
    """For each ridge rho: H = K/n (K/n + rho I)^-1 and r = (I - H) y, means over points, sums over outputs.

    loo [p]: mean_i |r_i / (1 - H_ii)|^2, the exact leave-one-out error, n rho held fixed (Allen 1974).
    gcv [p]: n |r|^2 / (n - tr H)^2 (Golub, Heath and Wahba 1979).
    train [p]: |r|^2 / n.  effective_dimension [p]: tr H.
    """

    ridges: Float[Tensor, "p"]
    loo: Float[Tensor, "p"]
    gcv: Float[Tensor, "p"]
    train: Float[Tensor, "p"]
    effective_dimension: Float[Tensor, "p"]

    def best(self, criterion: str) -> float:
        """The ridge with the smallest `criterion` ("loo" or "gcv")."""
        return float(self.ridges[int(getattr(self, criterion).argmin())])


def default_ridges(spectrum: Spectrum) -> Float[Tensor, "p"]:
    """27 ridges from 1e-13 to 1 times lambda_1, none below the noise floor."""
    top = float(spectrum.eigenvalues[0])
    ridges = top * torch.logspace(-13, 0, 27, dtype=torch.float64)
    return ridges[ridges >= min(spectrum.noise_floor, top)]


def ridge_path(
    spectrum: Spectrum, y: Float[Tensor, "n *C"], ridges: Sequence[float] | Tensor | None = None
) -> RidgePath:
    """Training, leave-one-out and GCV errors for every ridge, O(n^2) each. The spectrum must hold all n modes.

    Raises InputError when it does not, when y has another length, or when a ridge is not positive.
    """
    Y = checked_targets(spectrum, y)
    rho = default_ridges(spectrum) if ridges is None else torch.as_tensor(ridges, dtype=torch.float64)
    if rho.ndim != 1 or len(rho) == 0 or not bool((rho > 0).all()):
        raise InputError("The ridges must be a list of positive numbers (in the units of the eigenvalues of K/n).")
    V, n = spectrum.eigenvectors, spectrum.n
    kept = rho[:, None] / (spectrum.eigenvalues + rho[:, None].to(V))  # 1 - H, mode by mode: [p, n]
    left = (V.square() @ kept.T).T  # 1 - H_ii: [p, n]
    projected = V.T @ Y
    loo, train = [], []
    for j in range(len(rho)):
        r = V @ (kept[j][:, None] * projected)
        loo.append((r / left[j][:, None]).square().sum() / n)
        train.append(r.square().sum() / n)
    train_error = torch.stack(train)
    gcv = train_error / (kept.sum(1) / n) ** 2
    return RidgePath(rho, torch.stack(loo), gcv, train_error, (1 - kept).sum(1))


def checked_targets(spectrum: Spectrum, y: Float[Tensor, "n *C"]) -> Float[Tensor, "n C"]:
    """y as [n, C] in float64; InputError for another length, numbers that are not finite, or a partial spectrum."""
    n = spectrum.n
    if spectrum.rank < n:
        raise InputError(
            f"This needs all {n} modes, but the spectrum holds {spectrum.rank}; compute it with rank=None."
        )
    if y.ndim not in (1, 2) or y.shape[0] != n or not bool(torch.isfinite(y).all()):
        raise InputError(f"y has shape {tuple(y.shape)}; it must be [{n}] or [{n}, C], with finite numbers.")
    return y.to(spectrum.eigenvectors).reshape(n, -1)
