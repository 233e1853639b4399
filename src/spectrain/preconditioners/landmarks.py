"""From a kernel on m landmarks to eigenvectors at all n training points.

Shapes: n training points, m landmarks, d input dims, k modes.
"""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import make_interp_spline
from torch import Tensor, nn
from torch.optim import Optimizer

from spectrain.errors import InputError, SpectrainWarning
from spectrain.kernels import empirical_ntk
from spectrain.kernels.weighted import weighted_ntk
from spectrain.preconditioners.metric import optimizer_metric
from spectrain.preconditioners.modes import evaluating
from spectrain.preconditioners.orthonormal import orthonormal_columns
from spectrain.spectrum import Spectrum

Extension = Literal["auto", "interpolate", "nystrom", "exact"]
EXTENSIONS = ("auto", "interpolate", "nystrom", "exact")
NYSTROM_BLOCK_ROWS = 4096
# Between refreshes the basis turns little, and S takes whatever basis it gets: one pass changes the final PSNR by less
# than the seed does, at a third of the cost of converging (the residual norms of the spectrum tell what was left).
WARM_PASSES = 1


@dataclass(frozen=True)
class Landmarks:
    """Points on which the kernel is computed, and the way from there to the training points.

    points: [m, d]; extension: "exact" (they are the training points), "interpolate" (the grid ``axes[0] x axes[1]``
    over the box of the training points) or "nystrom" (a subset of them).
    """

    points: Tensor
    extension: str
    axes: tuple[Tensor, Tensor] | None = None

    def spectrum(
        self, network: nn.Module, rank: int, init: Tensor | None = None, *, optimizer: Optimizer | None = None
    ) -> Spectrum:
        """Leading `rank` eigenpairs of K/m, K the trace kernel of `network` on the landmarks; `init` warm-starts.

        With an `optimizer` K is J D J^T, D its present metric: the kernel that its steps follow (`optimizer_metric`).

        Raises:
            InputError: a kernel that is not finite, or an optimizer together with the Nystroem extension.
        """
        if optimizer is not None and self.extension == "nystrom":
            raise InputError("The kernel in the optimizer's metric has no Nystroem extension; interpolate from a grid.")
        with evaluating(network):
            if optimizer is None:
                K = empirical_ntk(network, self.points, outputs="trace")
            else:
                K = weighted_ntk(network, self.points, roots=optimizer_metric(network, optimizer))
        if not bool(torch.isfinite(K).all()):
            raise InputError(
                "The kernel of the network has entries that are not finite; the weights may have diverged."
            )
        if init is None:
            return Spectrum.from_kernel(K, rank=rank)
        return Spectrum.from_kernel(K, rank=rank, init=init, max_passes=WARM_PASSES)

    def extend(self, spectrum: Spectrum, x: Float[Tensor, "n d"], network: nn.Module) -> Spectrum:
        """The same modes with eigenvectors at the points x, orthonormal in the order of the modes."""
        if self.extension == "exact":
            return spectrum
        if self.extension == "interpolate":
            assert self.axes is not None
            values = interpolate_grid(spectrum.eigenvectors, self.axes, x)
        else:
            spectrum = _leading(spectrum, max(1, spectrum.resolved))  # an unresolved mode divides noise by noise
            with evaluating(network):
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
        low, high = x.min(dim=0).values, x.max(dim=0).values
        rows, columns = (_axis(low[i], high[i], size) for i, size in enumerate(_coarse_shape(grid_shape, count)))
        return Landmarks(torch.cartesian_prod(rows, columns), "interpolate", (rows, columns))
    chosen = torch.randperm(n, generator=generator or torch.Generator().manual_seed(0))[:count]
    return Landmarks(x[chosen.sort().values.to(x.device)], "nystrom")


def interpolate_grid(
    values: Float[Tensor, "m k"], axes: tuple[Tensor, Tensor], points: Float[Tensor, "n 2"]
) -> Float[Tensor, "n k"]:
    """Spline interpolation of k functions from the grid ``axes[0] x axes[1]`` (C order) to `points` of a finer grid.

    A cubic spline in each direction, ``W_rows F W_columns^T``: it reproduces cubic polynomials up to the border, which
    `torch.nn.functional.grid_sample` does not (its bicubic kernel, a = -0.75, misses even linear functions).
    """
    rows, row = points[:, 0].unique(return_inverse=True)
    columns, column = points[:, 1].unique(return_inverse=True)
    weights = [_spline_weights(axis, at).to(values) for axis, at in zip(axes, (rows, columns), strict=True)]
    pictures = values.reshape(len(axes[0]), len(axes[1]), -1)
    on_grid = torch.einsum("Rr,rck->Rck", weights[0], pictures)
    return torch.einsum("Cc,Rck->RCk", weights[1], on_grid)[row, column]


def _spline_weights(nodes: Tensor, at: Tensor) -> Tensor:
    """[len(at), len(nodes)]: values of the interpolating cubic spline (lower degree below four nodes) at `at`."""
    degree = min(3, len(nodes) - 1)
    if degree == 0:
        return torch.ones(len(at), 1, dtype=torch.float64)
    spline = make_interp_spline(nodes.double().cpu(), np.eye(len(nodes)), k=degree)
    # A copy: NumPy aligns memory as it comes, and with the alignment the rounding of a matrix product changes.
    return torch.from_numpy(spline(at.double().cpu())).clone()


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


def _axis(low: Tensor, high: Tensor, size: int) -> Tensor:
    if size == 1:
        return (low + high)[None] / 2
    return low + (high - low) * torch.linspace(0, 1, size, dtype=low.dtype, device=low.device)


def _coarse_shape(grid_shape: tuple[int, int], count: int) -> tuple[int, int]:
    """Rows and columns in about the proportions of `grid_shape`, no finer than it, at most `count` together."""
    rows, columns = grid_shape
    coarse_rows = min(rows, max(1, math.isqrt(count * rows // columns)))
    coarse_columns = min(columns, max(1, count // coarse_rows))
    return min(rows, max(1, count // coarse_columns)), coarse_columns
