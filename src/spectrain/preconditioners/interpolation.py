"""Functions known at landmarks, at other points: weights that depend on the points alone, computed once.

Shapes: m landmarks, n points, d input dims, q functions, s neighbours.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import make_interp_spline
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import embedding_bag

Interpolator = Callable[[Tensor], Tensor]  # values [m, q] -> [n, q]
NEIGHBOURS = 20
_BLOCK = 8192


def interpolate_grid(
    values: Float[Tensor, "m q"], axes: tuple[Tensor, Tensor], points: Float[Tensor, "n 2"]
) -> Float[Tensor, "n q"]:
    """Spline interpolation of q functions from the grid ``axes[0] x axes[1]`` (C order) to `points` of a finer grid."""
    return grid_interpolator(axes, points)(values)


def grid_interpolator(axes: tuple[Tensor, Tensor], points: Float[Tensor, "n 2"]) -> Interpolator:
    """A cubic spline in each direction, ``W_rows F W_columns^T``, for `points` of a finer grid or a part of one.

    It reproduces cubic polynomials up to the border, which `torch.nn.functional.grid_sample` does not (its bicubic
    kernel, a = -0.75, misses even linear functions).
    """
    rows, row = points[:, 0].unique(return_inverse=True)
    columns, column = points[:, 1].unique(return_inverse=True)
    weights = [_spline_weights(axis, at).to(points.device) for axis, at in zip(axes, (rows, columns), strict=True)]

    def interpolate(values: Tensor) -> Tensor:
        pictures = values.reshape(len(axes[0]), len(axes[1]), -1)
        on_grid = torch.einsum("Rr,rcq->Rcq", weights[0].to(values), pictures)
        return torch.einsum("Cc,Rcq->RCq", weights[1].to(values), on_grid)[row, column]

    return interpolate


def _spline_weights(nodes: Tensor, at: Tensor) -> Tensor:
    """[len(at), len(nodes)]: values of the interpolating cubic spline (lower degree below four nodes) at `at`."""
    degree = min(3, len(nodes) - 1)
    if degree == 0:
        return torch.ones(len(at), 1, dtype=torch.float64)
    spline = make_interp_spline(nodes.double().cpu(), np.eye(len(nodes)), k=degree)
    # A copy: NumPy aligns memory as it comes, and with the alignment the rounding of a matrix product changes.
    return torch.from_numpy(spline(at.double().cpu())).clone()


def scattered_interpolator(nodes: Float[Tensor, "m d"], points: Float[Tensor, "n d"]) -> Interpolator:
    """Radial basis functions on the nearest `NEIGHBOURS` landmarks of each point, a sparse [n, m] matrix.

    The weights w of a point x solve ``[-r_ij, 1; 1^T, 0] [w; mu] = [-|x - x_i|; 1]``: exact at the landmarks and for
    constants. In docs/your_own_loop.md it is compared with linear (Delaunay), inverse-distance and nearest-neighbour
    weights. The landmarks must be distinct. Source: Wendland 2005, Scattered Data Approximation, chapter 8 (-r is
    conditionally positive definite of order one, so the system is solvable).
    """
    s = min(NEIGHBOURS, len(nodes))
    centers, x = nodes.double().cpu(), points.double().cpu()
    found = torch.from_numpy(cKDTree(centers.numpy()).query(x.numpy(), s)[1]).reshape(len(x), s)
    near = torch.cat([_local_weights(centers[i], at) for i, at in zip(found.split(_BLOCK), x.split(_BLOCK))])  # noqa: B905
    index, weights = found.to(points.device), near.to(points.device)

    def interpolate(values: Tensor) -> Tensor:
        return embedding_bag(index, values.contiguous(), per_sample_weights=weights.to(values), mode="sum")

    return interpolate


def _local_weights(centers: Float[Tensor, "n s d"], x: Float[Tensor, "n d"]) -> Float[Tensor, "n s"]:
    n, s, _ = centers.shape
    A = centers.new_ones(n, s + 1, s + 1)
    A[:, :s, :s] = -torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")
    A[:, s, s] = 0
    b = centers.new_ones(n, s + 1)
    b[:, :s] = -(centers - x[:, None]).norm(dim=2)
    weights: Tensor = torch.linalg.solve(A, b)[:, :s]
    return weights
