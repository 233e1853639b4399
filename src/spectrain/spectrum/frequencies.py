"""Energy per frequency of a residual on a circle, a line or an image grid.

Letters: n points, C outputs, H W rows and columns of a grid, F frequencies. Energies are mean squares, and sum to
|r|^2 / n (Parseval), up to the highest frequency asked for.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError


def energy_per_frequency(
    residual: Float[Tensor, "n *C"], *, domain: Literal["circle", "line"] = "circle"
) -> Float[Tensor, "F"]:
    """Energy at 0, 1, 2, .. periods over n equally spaced points, outputs summed.

    circle: the points go once around; Fourier modes, F = n // 2 + 1. line: cosine modes cos(pi kappa (j + 1/2) / n),
    which need no periodicity (kappa counts half periods), F = n. Sums to |r|^2 / n.
    Sources: Parseval; the cosine modes, Ahmed, Natarajan and Rao 1974.
    """
    r = _columns(residual)
    n = r.shape[0]
    if domain == "circle":
        power: Tensor = torch.fft.rfft(r, dim=0).abs().square().sum(1) / n**2
        # Every frequency but the mean and, for even n, the last stands for two Fourier modes.
        power[1 : (n + 1) // 2] *= 2
        return power
    if domain == "line":
        return _cosine(r, 0).square().sum(1)
    raise InputError(f"domain={domain!r} is not known; it must be 'circle' or 'line'.")


def energy_per_radius(residual: Float[Tensor, "n *C"], grid_shape: tuple[int, int]) -> Float[Tensor, "F"]:
    """Energy of an image's residual in rings of frequency: ring j holds |(kappa_row, kappa_column)| in [j, j + 1).

    Cosine modes in both directions (an image is not periodic; Ahmed, Natarajan and Rao 1974), in half periods over the
    image; points in C order.
    Raises InputError when the residual does not have H W rows.
    """
    H, W = grid_shape
    r = _columns(residual)
    if r.shape[0] != H * W:
        raise InputError(f"The residual has {r.shape[0]} rows, but the grid {H} x {W} has {H * W} points.")
    power = _cosine(_cosine(r.reshape(H, W, -1), 0), 1).square().sum(2)
    rows, columns = torch.arange(H, device=r.device)[:, None], torch.arange(W, device=r.device)
    radius = (rows**2 + columns**2).double().sqrt().long()
    return torch.zeros(int(radius.max()) + 1, dtype=r.dtype, device=r.device).index_add_(
        0, radius.flatten(), power.flatten()
    )


def _cosine(r: Tensor, axis: int) -> Tensor:
    """Orthonormal DCT-II along an axis, divided by sqrt(n): squares sum to the mean square."""
    n = r.shape[axis]
    j = torch.arange(n, dtype=r.dtype, device=r.device)
    basis = torch.cos(torch.pi * j[:, None] * (j + 0.5) / n) * (2 / n) ** 0.5
    basis[0] /= 2**0.5
    coefficients: Tensor = torch.tensordot(basis / n**0.5, r, dims=([1], [axis]))
    return torch.movedim(coefficients, 0, axis)


def _columns(residual: Tensor) -> Tensor:
    if residual.ndim not in (1, 2) or residual.shape[0] < 2:
        raise InputError(f"The residual has shape {tuple(residual.shape)}; it must be [n] or [n, C] with n >= 2.")
    return residual.double().reshape(residual.shape[0], -1)
