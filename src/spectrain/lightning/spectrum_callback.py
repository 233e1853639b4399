"""The callback that recomputes the kernel's spectrum from landmarks and hands it to the preconditioner.

Shapes: n training points, m landmarks, k modes.
"""

import time
import warnings
from contextlib import nullcontext
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor

from spectrain.errors import InputError, SpectrainWarning
from spectrain.lightning.module import WideNetworkModule
from spectrain.preconditioners import Landmarks, Preconditioner, choose_landmarks
from spectrain.spectrum import Spectrum
from spectrain.spectrum.measures import condition_number


class SpectrumCallback(pl.Callback):
    """Every `every_n_steps` steps: kernel on the landmarks -> spectrum -> eigenvectors at all points -> preconditioner.

    Without a preconditioner that needs it the spectrum is measured once, before training. A refresh leaves the run's
    random numbers as they were; one that fails keeps the last good spectrum and says so.

    Args:
        rank: k, the modes that are kept; at most `subset_size`.
        subset_size: m, the number of landmarks.
        every_n_steps: optimizer steps between refreshes; the first period has two more, at a quarter and at a half of
            it, since the kernel moves most at the start.
        extension: how the eigenvectors reach the training points, see `choose_landmarks`.
        landmarks: which points become landmarks, see `choose_landmarks`.
    """

    def __init__(
        self,
        rank: int = 64,
        subset_size: int = 1024,
        every_n_steps: int = 20,
        extension: str = "auto",
        landmarks: str = "auto",
    ) -> None:
        if rank > subset_size:
            raise InputError(
                f"spectrum.rank={rank} is above spectrum.subset_size={subset_size}: "
                "a kernel on m landmarks has m modes at the most."
            )
        self.rank, self.subset_size, self.every_n_steps, self.extension = rank, subset_size, every_n_steps, extension
        self._placement = landmarks
        self.spectrum: Spectrum | None = None  # on the landmarks
        self.initial: Spectrum | None = None  # the first one of the run, at all training points
        self.refresh_seconds = 0.0
        self.refreshes = 0
        self.failed_refreshes = 0
        self._refreshed_at = -1
        self._landmarks: Landmarks | None = None
        self._x: Tensor | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Choose the landmarks among the data module's training points."""
        if stage != "fit":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        parameter = next(pl_module.parameters())
        self._x = data.train_x.to(parameter.device, parameter.dtype)
        self._landmarks = self.landmarks(data, self._x)

    @property
    def modes(self) -> tuple[Tensor, Spectrum] | None:
        """The landmarks and their spectrum of the last refresh."""
        if self.spectrum is None or self._landmarks is None:
            return None
        return self._landmarks.points, self.spectrum

    def landmarks(self, data: Any, x: Tensor) -> Landmarks:
        """Those that this callback will use on the data module's training points x [n, d].

        Raises:
            InputError: the rank is above their number, or the data do not allow the extension.
        """
        chosen = choose_landmarks(
            x,
            self.subset_size,
            extension=self.extension,
            landmarks=self._placement,
            grid_shape=getattr(data, "grid_shape", None),
        )
        m = chosen.count
        if self.rank > m:
            raise InputError(
                f"spectrum.rank={self.rank} is above the {m} landmarks that spectrum.subset_size={self.subset_size} "
                f"gives on {len(x)} training points; it must be at most {m}."
            )
        return chosen

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where no preconditioner needs it: one measurement, before the clock starts, charged to nobody."""
        if not _needs_spectrum(pl_module) and self.initial is None:
            self.refresh(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Refresh when it is due, once per optimizer step (micro-batches of an accumulation call this too)."""
        step = trainer.global_step
        if not _needs_spectrum(pl_module) or step == self._refreshed_at or not self._due(step):
            return
        self._refreshed_at = step
        begun = time.perf_counter()
        succeeded = self.refresh(trainer, pl_module)
        seconds = time.perf_counter() - begun
        self.refresh_seconds += seconds
        if succeeded:
            self.refreshes += 1
            self._log(trainer, pl_module, seconds)
        else:
            self.failed_refreshes += 1

    def _due(self, step: int) -> bool:
        return step % self.every_n_steps == 0 or step in (self.every_n_steps // 4, self.every_n_steps // 2)

    def refresh(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        """Recompute the spectrum at the present weights and pass it on; return whether that succeeded.

        Raises:
            InputError: it failed, and there is no earlier spectrum that the preconditioner could go on with.
        """
        try:
            with torch.random.fork_rng(), torch.autocast(pl_module.device.type, enabled=False), _busy(trainer):
                self._refresh(pl_module)
        except (RuntimeError, InputError) as error:  # LinAlgError and out-of-memory are RuntimeErrors
            failed = f"The spectrum refresh at step {trainer.global_step} failed"
            if self.spectrum is None and _needs_spectrum(pl_module):
                raise InputError(f"{failed}, and there is none to go on with: {error}") from error
            kept = "the last good spectrum stays" if self.spectrum is not None else "the run goes on without one"
            warnings.warn(f"{failed}, {kept}: {error}", SpectrainWarning, stacklevel=2)
            return False
        return True

    def _refresh(self, pl_module: pl.LightningModule) -> None:
        assert self._landmarks is not None and self._x is not None
        module: WideNetworkModule = pl_module  # type: ignore[assignment]
        init = None if self.spectrum is None else self.spectrum.eigenvectors
        spectrum = self._landmarks.spectrum(module.network, self.rank, init)
        if module.preconditioner is not None:
            module.preconditioner.take(spectrum, self._landmarks, module.network, self._x)
        if self.initial is None:
            self.initial = self._landmarks.extend(spectrum, self._x, module.network)
        self.spectrum = spectrum

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, seconds: float) -> None:
        """Straight to the loggers: Lightning would repeat what `self.log` gets until the next refresh."""
        if self.spectrum is None:
            return
        values = {
            "spectrum/condition_before": condition_number(self.spectrum),
            "spectrum/condition_after": condition_number(self.spectrum, _preconditioner(pl_module).spectral_map),
            "spectrum/largest_eigenvalue": float(self.spectrum.eigenvalues[0]),
            "spectrum/resolved_modes": float(self.spectrum.resolved),
            "time/refresh_seconds": seconds,
        }
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives; loads under ``weights_only=True``."""
        return {
            "spectrum": self.spectrum.state_dict() if self.spectrum else None,
            "initial": self.initial.state_dict() if self.initial else None,
            "refresh_seconds": self.refresh_seconds,
            "refreshes": self.refreshes,
            "failed_refreshes": self.failed_refreshes,
            "refreshed_at": self._refreshed_at,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the next refresh then starts from the same basis."""
        restore = Spectrum.from_state_dict
        self.spectrum = restore(state_dict["spectrum"]) if state_dict["spectrum"] else None
        self.initial = restore(state_dict["initial"]) if state_dict["initial"] else None
        self.refresh_seconds = state_dict["refresh_seconds"]
        self.refreshes = state_dict["refreshes"]
        self.failed_refreshes = state_dict["failed_refreshes"]
        self._refreshed_at = state_dict["refreshed_at"]


def _needs_spectrum(pl_module: pl.LightningModule) -> bool:
    return pl_module.preconditioner is not None and _preconditioner(pl_module).needs_spectrum


def _preconditioner(pl_module: pl.LightningModule) -> Preconditioner:
    return cast(Preconditioner, pl_module.preconditioner)


def _busy(trainer: pl.Trainer) -> Any:
    """The progress bar's own spinner for work that takes long, where the bar has one."""
    busy = getattr(trainer.progress_bar_callback, "busy", None)
    return busy("refreshing the spectrum") if busy else nullcontext()
