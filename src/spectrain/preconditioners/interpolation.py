"""Functions known at landmarks, at other points: weights W [n, m] that depend on the points alone, computed once.

An interpolator is called with values [m, q] and gives ``W values``; `gram_times` gives ``W^T W values`` without the n
points, and with it the inner products of functions there.

Shapes: m landmarks, n points, d input dims, q functions, s neighbours.
"""

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import make_interp_spline
from scipy.sparse import csr_array
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import embedding_bag

NEIGHBOURS = 20
_BLOCK = 8192


def interpolate_grid(
    values: Float[Tensor, "m q"], axes: tuple[Tensor, Tensor], points: Float[Tensor, "n 2"]
) -> Float[Tensor, "n q"]:
    """Spline interpolation of q functions from the grid ``axes[0] x axes[1]`` (C order) to `points` of a finer grid."""
    return GridInterpolator(axes, points)(values)


class GridInterpolator:
    """A cubic spline in each direction, ``W_rows F W_columns^T``, for `points` of a finer grid or a part of one.

    It reproduces cubic polynomials up to the border, which `torch.nn.functional.grid_sample` does not (its bicubic
    kernel, a = -0.75, misses even linear functions).
    """

    def __init__(self, axes: tuple[Tensor, Tensor], points: Float[Tensor, "n 2"]) -> None:
        rows, row = points[:, 0].unique(return_inverse=True)
        columns, column = points[:, 1].unique(return_inverse=True)
        self._rows, self._columns = (
            _spline_weights(axis, at).to(points.device) for axis, at in zip(axes, (rows, columns), strict=True)
        )
        self._place = row * len(columns) + column  # of each point on the finer grid, in C order
        in_order = torch.arange(len(rows) * len(columns), device=points.device)
        self._whole = torch.equal(self._place, in_order)

    def __call__(self, values: Float[Tensor, "m q"]) -> Float[Tensor, "n q"]:
        """The functions at the points, in the dtype of `values`."""
        on_grid = (self._columns.to(values) @ self._along_rows(values)).flatten(0, 1)
        return on_grid if self._whole else on_grid[self._place]

    def gram_times(self, values: Float[Tensor, "m q"]) -> Float[Tensor, "m q"]:
        """``sum_p (w_r w_r^T) (x) (w_c w_c^T) values`` over the points p = (r, c): row by row of the finer grid."""
        across = self._across.to(values) @ self._along_rows(values)
        return (self._rows.T.to(values) @ across.flatten(1)).reshape(values.shape)

    def _along_rows(self, values: Float[Tensor, "m q"]) -> Float[Tensor, "rows c q"]:
        by_row = self._rows.to(values) @ values.reshape(self._rows.shape[1], -1)
        return by_row.reshape(len(self._rows), self._columns.shape[1], -1)

    @cached_property
    def _across(self) -> Float[Tensor, "rows c c"]:
        """``sum_c w_c w_c^T`` over the points of each row of the finer grid, some of which may lack or come twice."""
        rows, columns = len(self._rows), len(self._columns)
        if self._whole:
            return (self._columns.T @ self._columns).expand(rows, -1, -1)
        count = torch.bincount(self._place, minlength=rows * columns).reshape(rows, 1, columns)
        return (self._columns.T * count) @ self._columns


def _spline_weights(nodes: Tensor, at: Tensor) -> Tensor:
    """[len(at), len(nodes)]: values of the interpolating cubic spline (lower degree below four nodes) at `at`."""
    degree = min(3, len(nodes) - 1)
    if degree == 0:
        return torch.ones(len(at), 1, dtype=torch.float64)
    spline = make_interp_spline(nodes.double().cpu(), np.eye(len(nodes)), k=degree)
    # A copy: NumPy aligns memory as it comes, and with the alignment the rounding of a matrix product changes.
    return torch.from_numpy(spline(at.double().cpu())).clone()


class ScatteredInterpolator:
    """Radial basis functions on the nearest `NEIGHBOURS` landmarks of each point, a sparse [n, m] matrix.

    The weights w of a point x solve ``[-r_ij, 1; 1^T, 0] [w; mu] = [-|x - x_i|; 1]``: exact at the landmarks and for
    constants. In docs/your_own_loop.md it is compared with linear (Delaunay), inverse-distance and nearest-neighbour
    weights. The landmarks must be distinct. Source: Wendland 2005, Scattered Data Approximation, chapter 8 (-r is
    conditionally positive definite of order one, so the system is solvable).
    """

    def __init__(self, nodes: Float[Tensor, "m d"], points: Float[Tensor, "n d"]) -> None:
        s = min(NEIGHBOURS, len(nodes))
        centers, x = nodes.double().cpu(), points.double().cpu()
        found = torch.from_numpy(cKDTree(centers.numpy()).query(x.numpy(), s)[1]).reshape(len(x), s)
        near = [_local_weights(centers[i], at) for i, at in zip(found.split(_BLOCK), x.split(_BLOCK))]  # noqa: B905
        self._m, self._index, self._weights = len(nodes), found.to(points.device), torch.cat(near).to(points.device)

    def __call__(self, values: Float[Tensor, "m q"]) -> Float[Tensor, "n q"]:
        """The functions at the points, in the dtype of `values`."""
        weights = self._weights.to(values)
        return embedding_bag(self._index, values.contiguous(), per_sample_weights=weights, mode="sum")

    def gram_times(self, values: Float[Tensor, "m q"]) -> Float[Tensor, "m q"]:
        """``W^T W values``, where landmarks without a point in common do not meet."""
        return torch.from_numpy(self._gram @ values.double().cpu().numpy()).to(values)

    @cached_property
    def _gram(self) -> csr_array:
        n, s = self._index.shape
        index, starts = self._index.cpu().numpy().ravel(), np.arange(0, n * s + 1, s)
        W = csr_array((self._weights.cpu().numpy().ravel(), index, starts), shape=(n, self._m))
        return (W.T @ W).tocsr()


def _local_weights(centers: Float[Tensor, "n s d"], x: Float[Tensor, "n d"]) -> Float[Tensor, "n s"]:
    n, s, _ = centers.shape
    A = centers.new_ones(n, s + 1, s + 1)
    A[:, :s, :s] = -torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")
    A[:, s, s] = 0
    b = centers.new_ones(n, s + 1)
    b[:, :s] = -(centers - x[:, None]).norm(dim=2)
    weights: Tensor = torch.linalg.solve(A, b)[:, :s]
    return weights


Interpolator = GridInterpolator | ScatteredInterpolator
