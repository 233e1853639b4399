"""S on the gradient at the network's output: the forward pass stays the identity, the loss stays the true loss.

Shapes: N training points, n points of a batch, C outputs, k modes.
"""

from typing import Any, Self

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from spectrain.errors import InputError
from spectrain.spectral_maps import SpectralMap
from spectrain.spectrum import Spectrum


def apply_sample(
    eigenvectors: Float[Tensor, "n k"], ratio: Float[Tensor, " k"], c: Float[Tensor, "n *C"]
) -> Float[Tensor, "n *C"]:
    """``S c = c - V ((1 - ratio) * (V^T c))`` with ``ratio = g(lambda) / lambda``, in O(n k C).

    `eigenvectors` V has orthonormal columns; S is symmetric positive definite exactly when every ratio is positive.
    Source: Geifman et al. 2024 (arXiv 2307.14531), section 4.
    """
    columns = c.reshape(len(c), -1)
    coefficients = (1 - ratio)[:, None] * (eigenvectors.T @ columns)
    return torch.addmm(columns, eigenvectors, coefficients, alpha=-1).reshape(c.shape)


class SamplePreconditioner:
    """Modified-spectrum preconditioner on the sample side, for any network, loss and optimizer.

    ::

        S = SamplePreconditioner(spectral_maps.power(0.5))
        loss = criterion(S(model(x)), y)  # loss of model(x), gradient of the output multiplied by S

    Until the first `update` it is the identity. `update` takes eigenvectors at all N training points; a minibatch
    names its rows by `index`, and S is built from those rows, orthonormalised in the order of the modes.
    """

    def __init__(self, spectral_map: SpectralMap) -> None:
        self.spectral_map = spectral_map
        self._eigenvectors: Tensor | None = None  # [N, k] orthonormal
        self._ratio: Tensor | None = None  # [k]
        self._last: tuple[Tensor, Tensor] | None = None  # (index, its orthonormal rows)

    @property
    def ready(self) -> bool:
        """Whether an `update` has been made, so that S is more than the identity."""
        return self._eigenvectors is not None

    def update(self, spectrum: Spectrum, *, dtype: torch.dtype = torch.float32) -> None:
        """Take a new spectrum, whose eigenvectors have one row for each of the N training points.

        The spectral map acts on the resolved modes only. S works in `dtype`.

        Raises:
            InputError: the map's ratio is not finite and positive; the old S then stays.
        """
        ratio = spectrum.ratio(self.spectral_map)
        self._eigenvectors = spectrum.eigenvectors.to(dtype)
        self._ratio = ratio.to(self._eigenvectors)
        self._last = None

    def __call__(self, output: Float[Tensor, "n *C"], index: Integer[Tensor, " n"] | None = None) -> Tensor:
        """Return `output` unchanged; in the backward pass its gradient c becomes S c.

        `index` holds each sample's row among the N training points; None means that the batch is all of them, in order.

        Raises:
            InputError: the batch does not fit the spectrum's points.
        """
        if self._eigenvectors is None or not output.requires_grad:
            return output
        rows = self._rows(output, index)
        ratio = self._ratio
        assert ratio is not None

        def precondition(c: Tensor) -> Tensor:
            return apply_sample(rows, ratio[: rows.shape[1]], c.to(rows.dtype)).to(c.dtype)

        wrapped = output.view_as(output)  # the hook must not reach whatever else uses `output`
        wrapped.register_hook(precondition)
        return wrapped

    def _rows(self, output: Tensor, index: Tensor | None) -> Tensor:
        """Orthonormal rows [n, k] of the batch, on the output's device."""
        table = self._eigenvectors
        assert table is not None
        if table.device != output.device:
            self._eigenvectors = table = table.to(output.device)
            self._ratio = None if self._ratio is None else self._ratio.to(output.device)
            self._last = None
        if index is None:
            if len(output) != len(table):
                raise InputError(
                    f"A batch of {len(output)} rows meets a spectrum of {len(table)} training points: "
                    "pass each sample's row among them, S(output, index)."
                )
            return table
        if len(index) != len(output):
            raise InputError(f"index has {len(index)} entries for a batch of {len(output)} rows; it needs one per row.")
        if self._last is None or self._last[0] is not index:  # a full batch sends the same index at every step
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(table):
                raise InputError(
                    f"index reaches from {int(index.min())} to {int(index.max())}; "
                    f"the spectrum has rows 0 to {len(table) - 1}, one per training point."
                )
            self._last = (index, orthonormal_columns(table[index]))
        return self._last[1]

    def state_dict(self) -> dict[str, Any]:
        """Tensors only; loads under ``weights_only=True``."""
        return {"eigenvectors": self._eigenvectors, "ratio": self._ratio}

    def load_state_dict(self, state_dict: dict[str, Any]) -> Self:
        """Restore what `state_dict` returned."""
        self._eigenvectors, self._ratio, self._last = state_dict["eigenvectors"], state_dict["ratio"], None
        return self


def orthonormal_columns(rows: Float[Tensor, "n k"]) -> Float[Tensor, "n q"]:
    """Gram-Schmidt of the columns in their order, q = min(n, k), by Cholesky where that is safe and by QR elsewhere.

    ``V^T V = L L^T``, ``Q = V L^-T``. Cholesky squares the condition number, which interpolated eigenvectors restricted
    to a batch of n >> k rows keep near 1; it is several times faster than QR there.
    """
    n, k = rows.shape
    if n >= 4 * k:
        gram = rows.T @ rows
        factor, info = torch.linalg.cholesky_ex(gram)
        # diag(L) / diag(gram)^(1/2) is the part of each column that is new; 0.1 bounds the loss to two digits.
        if not bool(info) and bool((factor.diagonal() > 0.1 * gram.diagonal().sqrt()).all()):
            Q: Tensor = torch.linalg.solve_triangular(factor.T, rows, upper=True, left=False)
            return Q
    Q, _ = torch.linalg.qr(rows)
    return Q
