"""What the three ways of applying a modified spectrum have in common, so that a training loop sees one interface.

Shapes: N training points, n points of a batch, C outputs.
"""

from typing import Any, Self

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.optim import Optimizer

from spectrain.preconditioners.landmarks import Landmarks, choose_landmarks
from spectrain.spectral_maps import SpectralMap
from spectrain.spectrum import Spectrum


class Preconditioner:
    """Base of the ways to apply S; by itself it is the identity.

    A training loop calls `run` for the output of a batch, `wrap` once on its optimizer, and `refresh` (or, with
    landmarks and a spectrum of its own, `take`) every so often. A way overrides what it needs of these.

    ``strength`` t in [0, 1] blends S with the identity, ``S_t = (1 - t) I + t S``, positive definite whenever S is.
    """

    needs_spectrum = True  # whether it wants a new spectrum every so often

    def __init__(self, spectral_map: SpectralMap) -> None:
        self.spectral_map = spectral_map
        self.strength = 1.0
        self._last_refresh: tuple[Tensor, Spectrum] | None = None  # (landmarks, their spectrum)

    def run(self, network: nn.Module, x: Any, index: Integer[Tensor, " n"] | None = None) -> Float[Tensor, "n *C"]:
        """``network(x)``; what comes back to it in the backward pass is preconditioned on the sample side.

        `index` holds each sample's row among the N training points; None means that the batch is all of them, in order.
        """
        output: Tensor = network(x)
        return output

    def wrap(self, optimizer: Optimizer) -> Optimizer:
        """The optimizer to use in place of `optimizer`: itself, unless the way acts on the parameters' gradient."""
        return optimizer

    def take(self, spectrum: Spectrum, landmarks: Landmarks, network: nn.Module, x: Tensor) -> None:
        """Use a new spectrum of `network` on the landmarks of its training points x [N, ...].

        Raises:
            InputError: the map's ratio is not finite and positive; what was there before then stays.
        """

    def refresh(
        self,
        model: nn.Module,
        x: Tensor,
        *,
        rank: int = 64,
        subset_size: int = 1024,
        extension: str = "auto",
        grid_shape: tuple[int, int] | None = None,
        optimizer: Optimizer | None = None,
    ) -> Spectrum:
        """Recompute the top `rank` modes of the tangent kernel of `model` on landmarks of x [N, ...], and take them.

        Uses all points when there are at most `subset_size`; see `choose_landmarks` for the rest. Starts from the modes
        of the last refresh. Given the optimizer, the kernel is the one that its steps follow, J D J^T with its present
        metric D. Returns the spectrum on the landmarks.

        Raises:
            InputError: settings that the points do not allow, a kernel that is not finite; the old S then stays.
        """
        landmarks = choose_landmarks(x, min(subset_size, len(x)), extension=extension, grid_shape=grid_shape)
        rank = min(rank, len(landmarks.points))
        spectrum = landmarks.spectrum(model, rank, self._warm_start(landmarks.points, rank), optimizer=optimizer)
        self.take(spectrum, landmarks, model, x)
        self._last_refresh = (landmarks.points, spectrum)
        return spectrum

    def _warm_start(self, points: Tensor, rank: int) -> Tensor | None:
        """The modes of the last refresh, if it was on the same landmarks and had as many."""
        if self._last_refresh is None:
            return None
        before, spectrum = self._last_refresh
        return spectrum.eigenvectors if spectrum.rank >= rank and torch.equal(before, points) else None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives only; loads under ``weights_only=True``."""
        return {"strength": self.strength}

    def load_state_dict(self, state_dict: dict[str, Any]) -> Self:
        """Restore what `state_dict` returned."""
        self.strength = state_dict["strength"]
        return self
