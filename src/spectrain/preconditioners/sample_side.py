"""S on the gradient at the network's output: the forward pass stays the identity, the loss stays the true loss.

Shapes: N training points, n points of a batch, C outputs, k modes.
"""

from typing import Any, Self

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.preconditioners.base import Preconditioner
from spectrain.preconditioners.landmarks import Landmarks
from spectrain.preconditioners.orthonormal import safe_cholesky
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


class SamplePreconditioner(Preconditioner):
    """Modified-spectrum preconditioner on the sample side, for any network, loss and optimizer.

    ::

        S = SamplePreconditioner(spectral_maps.power(0.5))
        S.refresh(model, x)  # every so often: the kernel moves with the weights
        loss = criterion(S(model(x)), y)  # loss of model(x), gradient of the output multiplied by S

    Until the first `refresh` or `update` it is the identity. `update` takes eigenvectors at all N training points; a
    minibatch names its rows by `index`, and S is built from those rows, orthonormalised in the order of the modes.
    """

    def __init__(self, spectral_map: SpectralMap) -> None:
        super().__init__(spectral_map)
        self._eigenvectors: Tensor | None = None  # [N, k] orthonormal
        self._ratio: Tensor | None = None  # [k]
        # (index, its version, its factors)
        self._last: tuple[Tensor, int, tuple[Tensor, Tensor]] | None = None

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

    def take(self, spectrum: Spectrum, landmarks: Landmarks, network: nn.Module, x: Tensor) -> None:
        """Extend the modes from the landmarks to all training points, and `update` with them."""
        extended = landmarks.extend(spectrum, x, network)
        self.update(extended, dtype=x.dtype if x.is_floating_point() else torch.float32)

    def run(self, network: nn.Module, x: Any, index: Tensor | None = None) -> Tensor:
        """``self(network(x), index)``."""
        return self(network(x), index)

    def __call__(self, output: Float[Tensor, "n *C"], index: Integer[Tensor, " n"] | None = None) -> Tensor:
        """Return `output` unchanged; in the backward pass its gradient c becomes S c.

        `index` holds each sample's row among the N training points; None means that the batch is all of them, in order.

        Raises:
            InputError: the batch does not fit the spectrum's points.
        """
        if self._eigenvectors is None or not output.requires_grad:
            return output
        full_precision = torch.autocast(output.device.type, enabled=False)
        with full_precision:
            V, M = self._factors(output, index)

        def precondition(c: Tensor) -> Tensor:
            columns = c.reshape(len(c), -1).to(V.dtype)
            with full_precision:
                return torch.addmm(columns, V, M @ (V.T @ columns), alpha=-self.strength).reshape(c.shape).to(c.dtype)

        wrapped = output.view_as(output)  # the hook must not reach whatever else uses `output`
        wrapped.register_hook(precondition)
        return wrapped

    def _factors(self, output: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor]:
        """V [n, k] and M [k, k] of the batch, on the output's device: ``S = I - V M V^T``."""
        self._move_to(output.device)
        table, ratio = self._eigenvectors, self._ratio
        assert table is not None
        assert ratio is not None
        if index is None:
            if len(output) != len(table):
                raise InputError(
                    f"A batch of {len(output)} rows meets a spectrum of {len(table)} training points: "
                    "pass each sample's row among them, S(output, index)."
                )
            return table, torch.diag(1 - ratio)
        if len(index) != len(output):
            raise InputError(f"index has {len(index)} entries for a batch of {len(output)} rows; it needs one per row.")
        # A full batch sends the same tensor at every step; its version counts changes made to it in place.
        if self._last is None or self._last[0] is not index or self._last[1] != index._version:
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(table):
                raise InputError(
                    f"index reaches from {int(index.min())} to {int(index.max())}; "
                    f"the spectrum has rows 0 to {len(table) - 1}, one per training point."
                )
            self._last = (index, index._version, batch_factors(table[index], ratio))
        return self._last[2]

    def _move_to(self, device: torch.device) -> None:
        if self._eigenvectors is not None and self._ratio is not None and self._eigenvectors.device != device:
            self._eigenvectors, self._ratio = self._eigenvectors.to(device), self._ratio.to(device)
            self._last = None

    def state_dict(self) -> dict[str, Any]:
        """Tensors only; loads under ``weights_only=True``."""
        return super().state_dict() | {"eigenvectors": self._eigenvectors, "ratio": self._ratio}

    def load_state_dict(self, state_dict: dict[str, Any]) -> Self:
        """Restore what `state_dict` returned."""
        self._eigenvectors, self._ratio, self._last = state_dict["eigenvectors"], state_dict["ratio"], None
        return super().load_state_dict(state_dict)


def batch_factors(rows: Float[Tensor, "n k"], ratio: Float[Tensor, " k"]) -> tuple[Tensor, Tensor]:
    """V and M with ``I - V M V^T = I - Q diag(1 - ratio) Q^T``, Q the rows orthonormalised in the order of the modes.

    With ``rows^T rows = L L^T``, ``Q = rows L^-T`` and so ``M = L^-T diag(1 - ratio) L^-1``: Q is never formed. A batch
    with fewer rows than modes, or rows that are nearly dependent, takes V = Q from a QR decomposition.
    """
    L = safe_cholesky(rows)
    if L is None:
        Q, _ = torch.linalg.qr(rows)
        return Q, torch.diag(1 - ratio[: Q.shape[1]])
    inverse = torch.linalg.solve_triangular(L, torch.eye(len(L), dtype=L.dtype, device=L.device), upper=False)
    return rows, inverse.T @ ((1 - ratio)[:, None] * inverse)
