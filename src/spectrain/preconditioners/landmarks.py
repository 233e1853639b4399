"""From a kernel on m landmarks to eigenvectors at all n training points.

Shapes: n training points, m landmarks, d input dims, C outputs, E = C for the full kernel and 1 otherwise, k modes.
"""

import math
import warnings
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves, tree_map_only

from spectrain.errors import InputError, SpectrainWarning
from spectrain.kernels import empirical_ntk, shared_ntk
from spectrain.kernels.empirical import Outputs
from spectrain.kernels.network import rows_of, take_rows
from spectrain.kernels.weighted import weighted_ntk
from spectrain.preconditioners import ranks
from spectrain.preconditioners.interpolation import GridInterpolator, Interpolator, ScatteredInterpolator
from spectrain.preconditioners.metric import optimizer_metric
from spectrain.preconditioners.modes import evaluating, stamp
from spectrain.preconditioners.orthonormal import orthonormal_columns, orthonormal_images
from spectrain.preconditioners.placement import farthest_points, leverage_points, random_points
from spectrain.spectrum import Spectrum, dense_pays
from spectrain.spectrum.solvers import Matrix

Extension = Literal["auto", "interpolate", "nystrom", "exact"]
EXTENSIONS = ("auto", "interpolate", "nystrom", "exact")
PLACEMENTS = ("auto", "grid", "random", "farthest", "leverage")
# Interpolated from 576 of 2,500 scattered points, the leading 32 modes of a ReLU network keep 97, 96, 95 % of
# themselves in 2, 3, 4 dimensions and 87 % in 8; Nystroem keeps 99 % everywhere (docs/your_own_loop.md).
INTERPOLATE_UP_TO = 4
NYSTROM_BLOCK_ROWS = 4096
# Between refreshes the basis turns little, and S takes whatever basis it gets: one pass changes the final PSNR by less
# than the seed does, at a third of the cost of converging (the residual norms of the spectrum tell what was left).
WARM_PASSES = 1


@dataclass(frozen=True)
class Landmarks:
    """Points on which the kernel is computed, and the way from there to the training points.

    points: [m, ...], or a tuple or dict of such; extension: "exact" (they are the training points), "interpolate" (from
    the grid ``axes[0] x axes[1]`` over the box of the training points, or from scattered points where axes is None) or
    "nystrom". `shared`: the ranks of torch.distributed compute kernels together, and hold the same bits.
    """

    points: Any
    extension: str
    axes: tuple[Tensor, Tensor] | None = None
    shared: bool = False
    _interpolators: list[tuple[Any, Interpolator]] = field(default_factory=list, repr=False, compare=False)

    @property
    def count(self) -> int:
        """m."""
        return rows_of(self.points)

    @property
    def moments(self) -> list[float]:
        """Two sums over each tensor of the points: enough to know them again in a resumed run."""
        leaves = [leaf.double() for leaf in tree_leaves(self.points) if isinstance(leaf, Tensor)]
        return [float(m) for leaf in leaves for m in (leaf.sum(), leaf.square().sum())]

    def kernel(
        self, network: nn.Module, outputs: Outputs = "trace", *, optimizer: Optimizer | None = None
    ) -> Float[Tensor, "mE mE"]:
        """K of `network` on the landmarks; rows of the full kernel are (point, output) pairs, the output faster.

        With an `optimizer` it is J D J^T, D its present metric: the trace kernel that its steps follow.

        Raises:
            InputError: a kernel that is not finite, or an optimizer together with the Nystroem extension.
        """
        if optimizer is not None and self.extension == "nystrom":
            raise InputError("The kernel in the optimizer's metric has no Nystroem extension; interpolate from a grid.")
        with evaluating(network):
            if optimizer is None:
                group = ranks.group(self.shared)
                K = _as_matrix(empirical_ntk(network, self.points, outputs=outputs, process_group=group))
            else:
                K = weighted_ntk(network, self.points, roots=optimizer_metric(network, optimizer))
        if not bool(torch.isfinite(K).all()):
            raise InputError(
                "The kernel of the network has entries that are not finite; the weights may have diverged."
            )
        return K

    def spectrum(
        self, network: nn.Module, rank: int, init: Tensor | None = None, *, optimizer: Optimizer | None = None
    ) -> Spectrum:
        """Leading `rank` eigenpairs of K/m, K the trace kernel of `network` on the landmarks; `init` warm-starts.

        Where it is shared and large, no rank has all of K: they multiply with it together.
        """
        group = ranks.group(self.shared)
        if group is not None and optimizer is None and not dense_pays(self.count, rank, init):
            with evaluating(network):
                K = shared_ntk(network, self.points, group)
            return ranks.same_spectrum(lambda: leading_modes(K, rank, init), self.shared)
        return self.modes(self.kernel(network, optimizer=optimizer), rank, init)

    def modes(self, K: Float[Tensor, "mE mE"], rank: int, init: Tensor | None = None) -> Spectrum:
        """Leading `rank` eigenpairs of K/m, from scratch or in `WARM_PASSES` from `init`; the same on all ranks."""
        return ranks.same_spectrum(lambda: leading_modes(K, rank, init), self.shared)

    def extend(self, spectrum: Spectrum, x: Any, network: nn.Module, dtype: torch.dtype = torch.float64) -> Spectrum:
        """The same modes with eigenvectors at the points x, orthonormal in the order of the modes.

        Many points are interpolated faster in float32, the eigenvectors' `dtype` then.
        """
        if self.extension == "exact":
            return spectrum
        if self.extension == "interpolate":
            return replace(spectrum, eigenvectors=self.interpolated_modes(spectrum.eigenvectors, x, dtype))
        spectrum = resolved_modes(spectrum)
        values = self.nystrom(network, x, spectrum.eigenvectors / (spectrum.n * spectrum.eigenvalues))
        return replace(spectrum, eigenvectors=orthonormal_columns(values))

    def interpolated_modes(
        self, values: Float[Tensor, "mE k"], x: Tensor, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "nE q"]:
        """k functions from the landmarks to the points x, orthonormal there in their order."""
        W = self._interpolator(x)
        gram = values.T @ W.gram_times(values.reshape(self.count, -1)).reshape(values.shape)

        def at_points(values: Tensor) -> Tensor:
            return W(values.reshape(self.count, -1)).reshape(-1, values.shape[1])

        return orthonormal_images(values, gram, at_points, dtype)

    def interpolate(self, values: Float[Tensor, "m q"], x: Tensor) -> Float[Tensor, "n q"]:
        """q functions from the landmarks to the points x."""
        return self._interpolator(x)(values)

    def _interpolator(self, x: Tensor) -> Interpolator:
        """From the landmarks to the points x; made once for the same x."""
        if not self._interpolators or self._interpolators[0][0] != stamp(x):
            made = GridInterpolator(self.axes, x) if self.axes else ScatteredInterpolator(self.points, x)
            self._interpolators[:] = [(stamp(x), made)]
        return self._interpolators[0][1]

    def nystrom(
        self, network: nn.Module, x: Any, basis: Float[Tensor, "mE k"], outputs: Outputs = "trace"
    ) -> Float[Tensor, "nE k"]:
        """``phi_i(x) = k(x, X_m) basis_i``, streamed over blocks of x; basis_i = v_i / (m lambda_i) extends a mode."""
        blocks = (take_rows(x, slice(i, i + NYSTROM_BLOCK_ROWS)) for i in range(0, rows_of(x), NYSTROM_BLOCK_ROWS))
        group = ranks.group(self.shared)

        def rows(x: Any) -> Tensor:
            K = empirical_ntk(network, x, self.points, outputs=outputs, process_group=group, gather=False)
            return ranks.all_rows(_as_matrix(K).to(basis) @ basis, self.shared)[0]

        with evaluating(network):
            return torch.cat([rows(x) for x in blocks])


def leading_modes(K: Tensor | Matrix, rank: int, init: Tensor | None = None) -> Spectrum:
    """Leading `rank` eigenpairs of K/m [m, m], from scratch or in `WARM_PASSES` from `init`."""
    if isinstance(K, Tensor):
        solve = partial(Spectrum.from_kernel, K, rank)
    else:
        solve = partial(Spectrum.from_operator, K, rank)
    return solve() if init is None else solve(init, max_passes=WARM_PASSES)


def resolved_modes(spectrum: Spectrum) -> Spectrum:
    """Those above the noise, one at least: Nystroem divides by the eigenvalue, and would divide noise by noise."""
    k = max(1, spectrum.resolved)
    return replace(
        spectrum,
        eigenvalues=spectrum.eigenvalues[:k],
        eigenvectors=spectrum.eigenvectors[:, :k],
        residual_norms=spectrum.residual_norms[:k],
    )


def choose_landmarks(
    x: Any,
    count: int,
    *,
    extension: str = "auto",
    landmarks: str = "auto",
    grid_shape: tuple[int, int] | None = None,
    generator: torch.Generator | None = None,
) -> Landmarks:
    """About `count` landmarks for the training points x: a tensor [n, ...], or a tuple or dict of them.

    extension: "interpolate" for points [n, d] of few dimensions, "nystrom" for any, "exact" takes all points; "auto"
    interpolates up to 4 dimensions. `grid_shape` (rows, columns) says that x fills a two-dimensional grid, such as an
    image's pixels or a part of them. landmarks: "grid" (a coarser one of the same proportions), "farthest" (greedy
    k-centers), "random", "leverage" (ridge leverage scores); "auto" takes the grid where there is one, farthest points
    to interpolate from and random ones for Nystroem. With `count` of n or more the landmarks are all points.

    Raises:
        InputError: an unknown extension or landmarks, or one that the data do not allow.
    """
    _check_choice("extension", extension, EXTENSIONS)
    _check_choice("landmarks", landmarks, PLACEMENTS)
    n = rows_of(x)
    if extension == "exact" or count >= n:
        if count > n:
            warnings.warn(
                f"spectrum.subset_size={count} is above the {n} training points; all of them are used.",
                SpectrainWarning,
                stacklevel=2,
            )
        return Landmarks(x, "exact")
    extension = _extension(x, extension, grid_shape)
    if landmarks == "auto":
        gridded = grid_shape is not None and extension == "interpolate"
        landmarks = "grid" if gridded else "farthest" if extension == "interpolate" else "random"
    if landmarks == "grid":
        return _grid(x, grid_shape, count, extension)
    rows = _rows(x, count, landmarks, generator or torch.Generator().manual_seed(0)).sort().values
    points = tree_map_only(Tensor, lambda leaf: leaf[rows.to(leaf.device)] if leaf.ndim else leaf, x)
    if extension == "interpolate":  # weights between landmarks that coincide are not defined
        points = points.unique(dim=0)
    return Landmarks(points, extension)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"spectrum.{name}={value!r} is not known; allowed: {', '.join(allowed)}.")


def _extension(x: Any, extension: str, grid_shape: tuple[int, int] | None) -> str:
    """What "auto" means for x, and whether it can be interpolated."""
    coordinates = isinstance(x, Tensor) and x.ndim == 2 and x.is_floating_point()
    few = coordinates and (x.shape[1] <= INTERPOLATE_UP_TO or grid_shape is not None)
    if extension == "auto":
        return "interpolate" if few else "nystrom"
    if extension == "interpolate" and not coordinates:
        raise InputError(
            "spectrum.extension=interpolate needs inputs that are points [n, d] of few dimensions; "
            "use spectrum.extension=nystrom for images, tokens and the like."
        )
    if extension == "interpolate" and not few:
        warnings.warn(
            f"spectrum.extension=interpolate in {x.shape[1]} dimensions loses much of the modes; "
            f"above {INTERPOLATE_UP_TO} spectrum.extension=nystrom is better.",
            SpectrainWarning,
            stacklevel=3,
        )
    return extension


def _rows(x: Any, count: int, landmarks: str, generator: torch.Generator) -> Tensor:
    if landmarks == "random":
        return random_points(rows_of(x), count, generator)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise InputError(
            f"spectrum.landmarks={landmarks} needs inputs with distances, one floating-point tensor [n, ...]; "
            "use spectrum.landmarks=random."
        )
    choose = farthest_points if landmarks == "farthest" else leverage_points
    return choose(x.flatten(1), count, generator)


def _grid(x: Tensor, grid_shape: tuple[int, int] | None, count: int, extension: str) -> Landmarks:
    if grid_shape is None:
        raise InputError(
            "spectrum.landmarks=grid needs inputs on a two-dimensional grid (an image); "
            "use spectrum.landmarks=farthest for scattered points."
        )
    low, high = x.min(dim=0).values, x.max(dim=0).values
    rows, columns = (_axis(low[i], high[i], size) for i, size in enumerate(_coarse_shape(grid_shape, count)))
    return Landmarks(torch.cartesian_prod(rows, columns), extension, (rows, columns))


def _as_matrix(K: Tensor) -> Tensor:
    """[n, m] as it is, [n, m, C, C] to [nC, mC]."""
    return K if K.ndim == 2 else K.transpose(1, 2).reshape(K.shape[0] * K.shape[2], K.shape[1] * K.shape[3])


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
