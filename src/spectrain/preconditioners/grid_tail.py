"""Beyond the modes that landmarks resolve: the sample-side preconditioner with a tail, on a full grid.

Shapes: N = rows x columns points, C outputs, k modes.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Integer
from scipy.fft import dct
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.preconditioners.landmarks import Landmarks
from spectrain.preconditioners.row_factors import RowFactors
from spectrain.preconditioners.sample_side import SamplePreconditioner
from spectrain.spectral_maps import SpectralMap
from spectrain.spectrum import Spectrum


@dataclass(frozen=True, kw_only=True)
class GridFactors(RowFactors):
    """S of a full batch with its tail: what `GridPreconditioner` says.

    `row_waves` and `column_waves` are cosines; `factors` [rows, columns] is h / max h; `order` [N] is the
    place of each row of the batch on the grid, None for its own order.
    """

    row_waves: Float[Tensor, "rows rows"]
    column_waves: Float[Tensor, "columns columns"]
    factors: Float[Tensor, "rows columns"]
    order: Integer[Tensor, " N"] | None = None

    def apply(self, c: Float[Tensor, "N C"], strength: float) -> Float[Tensor, "N C"]:
        """``(1 - t) c + t S c``."""
        at_points = c if self.order is None else torch.empty_like(c).index_copy_(0, self.order, c)
        head, h = super().apply(at_points, 1.0), self.factors
        beyond = at_points - self.left @ (self.left.T @ at_points)
        pictures = beyond.T.reshape(-1, *h.shape)
        waves = self.row_waves @ pictures @ self.column_waves.T
        tail = (self.row_waves.T @ (h * waves) @ self.column_waves).flatten(1).T
        shaped = h.min() * (head - beyond) + tail - self.left @ (self.left.T @ tail)
        return torch.lerp(c, shaped if self.order is None else shaped[self.order], strength)


class GridPreconditioner(SamplePreconditioner):
    """``S = (V diag(ratio) V^T + P F P) / max h``, ``P = I - V V^T``, ``F = DCT^T diag(h) DCT``; full batches only.

    On a grid the modes that no landmark sees are nearly cosines, and there are about ``i(w) = pi |w|^2 / 4`` of them
    below the frequency w (half periods along each axis). Where eigenvalues decay as a power of i, lambda^-alpha is one
    too: ``h(w) = max(1, i(w) / k)^exponent``, 1 at the last mode of the head. The largest factor of S is 1.

    Args:
        spectral_map: g, of the head.
        grid_shape: rows and columns of the training points; None finds them at the first refresh.
        exponent: of the tail; 0 is none.

    Raises:
        InputError: a negative exponent.
    """

    def __init__(
        self, spectral_map: SpectralMap, grid_shape: tuple[int, int] | None = None, *, exponent: float = 0.5
    ) -> None:
        super().__init__(spectral_map)
        if exponent < 0:
            raise InputError(f"exponent={exponent} would damp the tail; it must be 0 (no tail) or more.")
        self.grid_shape, self.exponent = grid_shape, exponent

    def take(self, spectrum: Spectrum, landmarks: Landmarks, network: nn.Module, x: Any) -> None:
        """As `SamplePreconditioner`, for points that fill a grid.

        Raises:
            InputError: they do not.
        """
        self.grid_shape = self.grid_shape or full_grid(x)
        super().take(spectrum, landmarks, network, x)

    def _factors(self, output: Tensor, index: Tensor | None) -> list[RowFactors]:
        found = super()._factors(output, index)
        if isinstance(found[0], GridFactors):
            return found
        if self.grid_shape is None or not len(output) == len(self._blocks[0][0]) == math.prod(self.grid_shape):
            raise InputError(
                f"A batch of {len(output)} rows is not the whole grid of {self.grid_shape} points; the tail of "
                "preconditioner=grid needs all of them in every batch (data.batch_size=null, one process)."
            )
        table, ratio = self._blocks[0]
        waves = [dct_matrix(size).to(table) for size in self.grid_shape]
        h = _tail_factors(self.grid_shape, table.shape[1], self.exponent)
        ordered = index is None or torch.equal(index, torch.arange(len(index), device=index.device))
        own = GridFactors(
            table,
            table,
            1 - ratio,
            row_waves=waves[0],
            column_waves=waves[1],
            factors=(h / h.max()).to(table),
            order=None if ordered else index,
        )
        if self._last is not None:
            self._last = (self._last[0], [own])
        return [own]

    def state_dict(self) -> dict[str, Any]:
        """As `SamplePreconditioner`, and the grid."""
        return super().state_dict() | {"grid_shape": self.grid_shape}

    def load_state_dict(self, state_dict: dict[str, Any]) -> Self:
        """Restore what `state_dict` returned."""
        self.grid_shape = state_dict["grid_shape"]
        return super().load_state_dict(state_dict)


def full_grid(x: Any) -> tuple[int, int]:
    """Rows and columns of points that are a whole grid in C order.

    Raises:
        InputError: they are something else.
    """
    if isinstance(x, Tensor) and x.ndim == 2 and x.shape[1] == 2:
        rows, columns = x[:, 0].unique(), x[:, 1].unique()
        if len(x) == len(rows) * len(columns) and torch.equal(x, torch.cartesian_prod(rows, columns)):
            return len(rows), len(columns)
    raise InputError(
        "preconditioner=grid needs training points that fill a two-dimensional grid, such as all pixels of a picture "
        "(data.holdout=false); use preconditioner=sample for others."
    )


def _tail_factors(grid_shape: tuple[int, int], k: int, exponent: float) -> Float[Tensor, "rows columns"]:
    """h."""
    w_rows, w_columns = (torch.arange(size, dtype=torch.float64) for size in grid_shape)
    modes = math.pi / 4 * (w_rows[:, None].square() + w_columns.square())
    return (modes / k).clamp(min=1) ** exponent


def dct_matrix(size: int) -> Float[Tensor, "size size"]:
    """The orthonormal discrete cosine transform (type 2): row w is ``cos(pi w (j + 1/2) / size)``, normalised."""
    return torch.from_numpy(dct(np.eye(size), type=2, norm="ortho", axis=0))
