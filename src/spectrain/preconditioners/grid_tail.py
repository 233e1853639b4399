"""Beyond the modes that landmarks resolve: the sample-side preconditioner with a tail, on a full grid.

Shapes: N = rows x columns points, C outputs, k modes.
"""

import math

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from spectrain.errors import InputError
from spectrain.preconditioners.sample_side import SamplePreconditioner
from spectrain.spectral_maps import SpectralMap
from spectrain.spectrum import Spectrum


class GridPreconditioner(SamplePreconditioner):
    """``S = (V diag(ratio) V^T + P F P) / max h``, ``P = I - V V^T``, ``F = DCT^T diag(h) DCT``; full batches only.

    On a grid the modes that no landmark sees are nearly cosines, and there are about ``i(w) = pi |w|^2 / 4`` of them
    below the frequency w (half periods along each axis). Where eigenvalues decay as a power of i, lambda^-alpha is one
    too: ``h(w) = max(1, i(w) / k)^exponent``, 1 at the last mode of the head. The largest factor of S is 1.

    Raises:
        InputError: a negative exponent.
    """

    def __init__(self, spectral_map: SpectralMap, grid_shape: tuple[int, int], *, exponent: float = 0.5) -> None:
        super().__init__(spectral_map)
        if exponent < 0:
            raise InputError(f"exponent={exponent} would damp the tail; it must be 0 (no tail) or more.")
        self.grid_shape, self.exponent = grid_shape, exponent
        self._waves: tuple[Tensor, Tensor, Tensor] | None = None  # cosines of rows and of columns, h / max h

    def __call__(self, output: Float[Tensor, "n *C"], index: Integer[Tensor, " n"] | None = None) -> Tensor:
        """As `SamplePreconditioner`, for a batch of all points of the grid.

        Raises:
            InputError: the batch is not the whole grid.
        """
        wrapped = super().__call__(output, index)
        table = self._eigenvectors
        if table is None or not output.requires_grad:
            return wrapped
        if not len(output) == len(table) == math.prod(self.grid_shape):
            raise InputError(
                f"A batch of {len(output)} rows is not the grid of {' x '.join(map(str, self.grid_shape))} points; "
                "the tail of the preconditioner needs full batches of all its points."
            )

        def add_tail(c: Tensor) -> Tensor:
            columns = c.reshape(len(c), -1).to(table.dtype)
            at_points = columns if index is None else torch.empty_like(columns).index_copy_(0, index, columns)
            shaped = self._tail(table, at_points)
            shaped = shaped if index is None else shaped[index]
            return torch.lerp(columns, shaped, self.strength).reshape(c.shape).to(c.dtype)

        # It commutes with what the parent class does: both act on the span of V and on the rest apart.
        tailed = wrapped.view_as(wrapped)
        tailed.register_hook(add_tail)
        return tailed

    def _tail(self, V: Tensor, c: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        """``(V V^T + P F P) c / max h``."""
        head = V @ (V.T @ c)
        if self._waves is None or self._waves[0].device != c.device:
            rows, columns = (dct_matrix(size).to(c) for size in self.grid_shape)
            h = self._factors_of_frequency(V.shape[1])
            self._waves = rows, columns, (h / h.max()).to(c)
        rows, columns, h = self._waves
        pictures = (c - head).T.reshape(-1, *self.grid_shape)
        tail = (rows.T @ (h * (rows @ pictures @ columns.T)) @ columns).flatten(1).T
        return h.min() * head + tail - V @ (V.T @ tail)

    def _factors_of_frequency(self, k: int) -> Float[Tensor, "rows columns"]:
        w_rows, w_columns = (torch.arange(size, dtype=torch.float64) for size in self.grid_shape)
        modes = math.pi / 4 * (w_rows[:, None].square() + w_columns.square())
        return (modes / k).clamp(min=1) ** self.exponent

    def update(self, spectrum: Spectrum, *, dtype: torch.dtype = torch.float32) -> None:
        """As `SamplePreconditioner`."""
        super().update(spectrum, dtype=dtype)
        self._waves = None  # they depend on the number of modes


def dct_matrix(size: int) -> Float[Tensor, "size size"]:
    """The orthonormal discrete cosine transform (type 2): row w is ``cos(pi w (j + 1/2) / size)``, normalised."""
    j = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * j[:, None] * (j + 0.5)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix
