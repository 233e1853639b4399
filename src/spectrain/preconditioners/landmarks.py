"""From a kernel on m landmarks to eigenvectors at all n training points.

Shapes: n training points, m landmarks, d input dims, k modes.
"""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from spectrain.errors import InputError, SpectrainWarning
from spectrain.kernels import empirical_ntk
from spectrain.preconditioners.sample_side import orthonormal_columns
from spectrain.spectrum import Spectrum

Extension = Literal["auto", "interpolate", "nystrom", "exact"]
EXTENSIONS = ("auto", "interpolate", "nystrom", "exact")
NYSTROM_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Landmarks:
    """Points on which the kernel is computed, and the way from there to the training points.

    points: [m, d]; extension: "exact" (they are the training points), "interpolate" (a grid of shape `grid_shape` over
    the box of the training points) or "nystrom" (a subset of them).
    """

    points: Tensor
    extension: str
    grid_shape: tuple[int, int] | None = None

    def spectrum(self, network: nn.Module, rank: int, init: Tensor | None = None) -> Spectrum:
        """Leading `rank` eigenpairs of K/m, K the trace kernel of `network` on the landmarks; `init` warm-starts."""
        K = empirical_ntk(network, self.points, outputs="trace")
        if not bool(torch.isfinite(K).all()):
            raise InputError("The kernel of the network has entries that are not finite; the weights may have diverged.")
        return Spectrum.from_kernel(K, rank=rank, init=init)

    def extend(self, spectrum: Spectrum, x: Float[Tensor, "n d"], network: nn.Module) -> Spectrum:
        """The same modes with eigenvectors at the points x, orthonormal in the order of the modes."""
        if self.extension == "exact":
            return spectrum
        if self.extension == "interpolate":
            assert self.grid_shape is not None  # noqa: S101  choose_landmarks sets it
            values = interpolate_grid(spectrum.eigenvectors, self.grid_shape, _to_unit_box(x, x))
        else:
            spectrum = _leading(spectrum, max(1, spectrum.resolved))  # an unresolved mode divides noise by noise
            values = _nystrom(network, x, self.points, spectrum)
        return replace(spectrum, eigenvectors=orthonormal_columns(values))


def choose_landmarks(
    x: Float[Tensor, "n d"],
    count: int,
    *,
    extension: str = "auto",
    grid_shape: tuple[int, int] | None = None,
    generator: torch.Generator | None = None,
) -> Landmarks:
    """About `count` landmarks for the training points `x`.

    `grid_shape` (rows, columns) says that x fills a two-dimensional grid, such as an image's pixels or a part of them;
    then "auto" interpolates from a coarser grid of the same proportions. Otherwise "auto" takes a random subset and the
    Nystroem extension. With `count` of n or more the landmarks are all points.

    Raises:
        InputError: an unknown extension, or one that the data do not allow.
    """
    n = len(x)
    if extension not in EXTENSIONS:
        raise InputError(f"spectrum.extension={extension!r} is not known; allowed: {', '.join(EXTENSIONS)}.")
    if extension == "exact" or count >= n:
        if count > n:
            warnings.warn(
                f"spectrum.subset_size={count} is above the {n} training points; all of them are used.",
                SpectrainWarning,
                stacklevel=2,
            )
        return Landmarks(x, "exact")
    if extension == "interpolate" and grid_shape is None:
        raise InputError(
            "spectrum.extension=interpolate needs inputs on a two-dimensional grid (an image); "
            "use spectrum.extension=nystrom for scattered points."
        )
    if grid_shape is not None and extension in ("auto", "interpolate"):
        rows, columns = _coarse_shape(grid_shape, count)
        low, high = x.min(dim=0).values, x.max(dim=0).values
        axes = [_axis(low[i], high[i], size) for i, size in enumerate((rows, columns))]
        return Landmarks(torch.cartesian_prod(*axes), "interpolate", (rows, columns))
    chosen = torch.randperm(n, generator=generator or torch.Generator().manual_seed(0))[:count]
    return Landmarks(x[chosen.sort().values.to(x.device)], "nystrom")


def interpolate_grid(
    values: Float[Tensor, "m k"], grid_shape: tuple[int, int], points: Float[Tensor, "n 2"]
) -> Float[Tensor, "n k"]:
    """Bicubic interpolation of k functions on a (rows, columns) grid over [-1, 1]^2, corners included, at `points`."""
    rows, columns = grid_shape
    pictures = values.T.reshape(1, -1, rows, columns)
    at = points.flip(-1).to(values).reshape(1, -1, 1, 2)  # grid_sample wants (column, row)
    sampled = functional.grid_sample(pictures, at, mode="bicubic", padding_mode="border", align_corners=True)
    return sampled[0, :, :, 0].T.contiguous()


def _nystrom(network: nn.Module, x: Tensor, landmarks: Tensor, spectrum: Spectrum) -> Tensor:
    """``phi_i(x) = k(x, X_m) v_i / (m lambda_i)``, streamed over blocks of x (up to a common factor)."""
    basis = spectrum.eigenvectors / (spectrum.n * spectrum.eigenvalues)
    values = [
        empirical_ntk(network, block, landmarks, outputs="trace").to(basis) @ basis
        for block in x.split(NYSTROM_BLOCK_ROWS)
    ]
    return torch.cat(values)


def _leading(spectrum: Spectrum, k: int) -> Spectrum:
    return replace(
        spectrum,
        eigenvalues=spectrum.eigenvalues[:k],
        eigenvectors=spectrum.eigenvectors[:, :k],
        residual_norms=spectrum.residual_norms[:k],
    )


def _to_unit_box(points: Tensor, box: Tensor) -> Tensor:
    low, high = box.min(dim=0).values, box.max(dim=0).values
    return 2 * (points - low) / (high - low).clamp_min(torch.finfo(points.dtype).tiny) - 1


def _axis(low: Tensor, high: Tensor, size: int) -> Tensor:
    steps = torch.linspace(0, 1, size, dtype=low.dtype, device=low.device)
    return low + (high - low) * steps


def _coarse_shape(grid_shape: tuple[int, int], count: int) -> tuple[int, int]:
    """Rows and columns in the proportions of `grid_shape` with a product of at most `count`, each two or more."""
    rows, columns = grid_shape
    coarse_rows = min(max(2, math.isqrt(count * rows // columns) if columns else 2), max(2, count // 2), max(2, rows))
    coarse_columns = min(max(2, count // coarse_rows), max(2, columns))
    return coarse_rows, coarse_columns
