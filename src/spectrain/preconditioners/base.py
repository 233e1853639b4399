"""What the three ways of applying a modified spectrum have in common, so that a training loop sees one interface.

Shapes: N training points, n points of a batch, C outputs.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.optim import Optimizer

from spectrain.errors import InputError
from spectrain.kernels.network import rows_of
from spectrain.preconditioners.landmarks import Landmarks, choose_landmarks
from spectrain.preconditioners.modes import stamp
from spectrain.preconditioners.refresh import attempt
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
        if not callable(spectral_map):
            raise InputError(
                f"spectral_map={spectral_map!r} is not a map of eigenvalues; give one such as spectral_maps.power(0.5)."
            )
        self.spectral_map = spectral_map
        self.strength = 1.0
        self.shared = False
        # The moments of its landmarks and their spectrum: what the next one starts from, also in a resumed run.
        self._last_refresh: tuple[list[float], Spectrum] | None = None
        self._chosen: tuple[Any, Landmarks] | None = None  # what was asked for, and the landmarks

    @property
    def in_use(self) -> "Preconditioner":
        """What acts at present: itself, unless it is made of several."""
        return self

    @property
    def effective_map(self) -> Callable[[Tensor], Tensor]:
        """Eigenvalues of K/n, descending -> the ratio that S has on them: the map's, unless a way bounds it."""
        return self.spectral_map

    @property
    def ready(self) -> bool:
        """Whether S is more than the identity."""
        return False

    @property
    def goes_on(self) -> str:
        """What training goes on with where a refresh has failed."""
        return "the last good spectrum stays" if self.in_use.ready else "S is the identity until the next one"

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
        computation fails, see `attempt`, a warning and the last good one.

        Raises:
            InputError: settings that the points do not allow, or a failure of the first refresh.
        """
        settings = {"extension": extension, "landmarks": landmarks, "grid_shape": grid_shape}
        chosen = self._choose(x, min(subset_size, rows_of(x)), settings)
        rank = min(rank, chosen.count)

        def compute() -> Spectrum:
            spectrum = chosen.spectrum(model, rank, self._warm_start(chosen, rank), optimizer=optimizer)
            self.take(spectrum, chosen, model, x)
            return spectrum

        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        last = self._last_refresh
        spectrum = attempt(compute, device, "The refresh failed", lambda: self.goes_on if last else None)
        if spectrum is None:
            assert last is not None
            return last[1]
        self._last_refresh = (chosen.moments, spectrum)
        return spectrum

    @property
    def modes(self) -> tuple[Any, Spectrum] | None:
        """The landmarks and their spectrum of the last `refresh`."""
        if self._last_refresh is None or self._chosen is None:
            return None
        return self._chosen[1].points, self._last_refresh[1]

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
        moments, spectrum = self._last_refresh
        return spectrum.eigenvectors if spectrum.rank >= rank and moments == landmarks.moments else None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives only; loads under ``weights_only=True``."""
        last = self._last_refresh
        refreshed = None if last is None else {"points": last[0], "spectrum": last[1].state_dict()}
        return {"strength": self.strength, "refreshed": refreshed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> Self:
        """Restore what `state_dict` returned."""
        self.strength, refreshed = state_dict["strength"], state_dict["refreshed"]
        restore = Spectrum.from_state_dict
        self._last_refresh = None if refreshed is None else (refreshed["points"], restore(refreshed["spectrum"]))
        return self
