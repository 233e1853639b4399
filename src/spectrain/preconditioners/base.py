"""What the three ways of applying a modified spectrum have in common, so that a training loop sees one interface.

Shapes: N training points, n points of a batch, C outputs.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.optim import Optimizer

from spectrain.errors import InputError, SpectrainWarning
from spectrain.kernels.network import rows_of
from spectrain.preconditioners.landmarks import Landmarks, choose_landmarks
from spectrain.preconditioners.modes import stamp
from spectrain.spectral_maps import SpectralMap
from spectrain.spectrum import Spectrum


class Preconditioner:
    """Base of the ways to apply S; by itself it is the identity.

    A training loop calls `run` for the output of a batch, `wrap` once on its optimizer, and `refresh` (or, with
    landmarks and a spectrum of its own, `take`) every so often. A way overrides what it needs of these.

    ``strength`` t in [0, 1] blends S with the identity, ``S_t = (1 - t) I + t S``, positive definite whenever S is.

    ``shared``: a batch with an index is this rank's share of one that all ranks of torch.distributed hold together, and
    they share the work of a refresh; all of them must then make the same calls. See docs/distributed.md.
    """

    needs_spectrum = True  # whether it wants a new spectrum every so often
    skipped_steps = 0  # that went on without S

    def __init__(self, spectral_map: SpectralMap) -> None:
        self.spectral_map = spectral_map
        self.strength = 1.0
        self.shared = False
        self._last_refresh: tuple[Landmarks, Spectrum] | None = None
        self._chosen: tuple[Any, Landmarks] | None = None  # what was asked for, and the landmarks

    @property
    def in_use(self) -> "Preconditioner":
        """What acts at present: itself, unless it is made of several."""
        return self

    @property
    def effective_map(self) -> Callable[[Tensor], Tensor]:
        """Eigenvalues of K/n, descending -> the ratio that S has on them: the map's, unless a way bounds it."""
        return self.spectral_map

    def run(self, network: nn.Module, x: Any, index: Integer[Tensor, " n"] | None = None) -> Float[Tensor, "n *C"]:
        """``network(x)``; what comes back to it in the backward pass is preconditioned on the sample side.

        `index` holds each sample's row among the N training points; None means that the batch is all of them, in order.
        """
        output: Tensor = network(x)
        return output

    def discard(self) -> None:
        """No backward pass will come to what `run` returned last: it was evaluated to be looked at."""

    def wrap(self, optimizer: Optimizer) -> Optimizer:
        """The optimizer to use in place of `optimizer`: itself, unless the way acts on the parameters' gradient."""
        return optimizer

    def take(self, spectrum: Spectrum, landmarks: Landmarks, network: nn.Module, x: Any) -> None:
        """Use a new spectrum of `network` on the landmarks of its training points x [N, ...].

        Raises:
            InputError: the map's ratio is not finite and positive; what was there before then stays.
        """

    def refresh(
        self,
        model: nn.Module,
        x: Any,
        *,
        rank: int = 64,
        subset_size: int = 1024,
        extension: str = "auto",
        landmarks: str = "auto",
        grid_shape: tuple[int, int] | None = None,
        optimizer: Optimizer | None = None,
    ) -> Spectrum:
        """Recompute the top `rank` modes of the tangent kernel of `model` on landmarks of x [N, ...], and take them.

        Uses all points when there are at most `subset_size`; see `choose_landmarks` for the rest. Landmarks are chosen
        once for the same x, and a refresh starts from the modes of the last one. Given the optimizer, the kernel is the
        one that its steps follow, J D J^T with its present metric D. Returns the spectrum on the landmarks; if the
        computation fails (not finite, no convergence, no memory), a warning and the last good one, which stays.

        Raises:
            InputError: settings that the points do not allow, or a failure of the first refresh.
        """
        settings = {"extension": extension, "landmarks": landmarks, "grid_shape": grid_shape}
        chosen = self._choose(x, min(subset_size, rows_of(x)), settings)
        rank = min(rank, chosen.count)
        try:
            with torch.autocast(next((p.device.type for p in model.parameters()), "cpu"), enabled=False):
                spectrum = chosen.spectrum(model, rank, self._warm_start(chosen, rank), optimizer=optimizer)
                self.take(spectrum, chosen, model, x)
        except (RuntimeError, MemoryError, InputError) as error:  # LinAlgError and out-of-memory are RuntimeErrors
            if self._last_refresh is None:
                raise
            warnings.warn(f"The refresh failed, the last good spectrum stays: {error}", SpectrainWarning, stacklevel=2)
            return self._last_refresh[1]
        self._last_refresh = (chosen, spectrum)
        return spectrum

    def _choose(self, x: Any, count: int, settings: dict[str, Any]) -> Landmarks:
        """Landmarks of x, the same ones as long as x and the settings are."""
        asked = (stamp(x), count, settings, self.shared)
        if self._chosen is None or self._chosen[0] != asked:
            self._chosen = (asked, replace(choose_landmarks(x, count, **settings), shared=self.shared))
        return self._chosen[1]

    def _warm_start(self, landmarks: Landmarks, rank: int) -> Tensor | None:
        """The modes of the last refresh, if it was on the same landmarks and had as many."""
        if self._last_refresh is None:
            return None
        before, spectrum = self._last_refresh
        points = before.points, landmarks.points
        same = before is landmarks or (all(isinstance(p, Tensor) for p in points) and torch.equal(*points))
        return spectrum.eigenvectors if spectrum.rank >= rank and same else None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives only; loads under ``weights_only=True``."""
        return {"strength": self.strength}

    def load_state_dict(self, state_dict: dict[str, Any]) -> Self:
        """Restore what `state_dict` returned."""
        self.strength = state_dict["strength"]
        return self
