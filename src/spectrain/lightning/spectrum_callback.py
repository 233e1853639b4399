"""The callback that recomputes the kernel's spectrum from landmarks and hands it to the preconditioner.

Shapes: n training points, m landmarks, k modes.
"""

import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from spectrain.errors import InputError
from spectrain.lightning.module import WideNetworkModule
from spectrain.lightning.stopwatch import Stopwatch, work_seconds
from spectrain.lightning.tracking import log_scalars, log_spectrum
from spectrain.preconditioners import Guard, Landmarks, Preconditioner, choose_landmarks
from spectrain.preconditioners.refresh import MOST_CHANGE, REFRESHES, attempt, kernel_change, last_due
from spectrain.spectrum import Spectrum

METRICS = ("network", "optimizer")


class SpectrumCallback(pl.Callback):
    """At steps 0, 5, 10, 20, ...: kernel on the landmarks -> spectrum -> eigenvectors at all points -> preconditioner.

    Without a preconditioner that needs it the spectrum is measured once, before training. A refresh leaves the run's
    random numbers as they were; one that fails keeps the last good spectrum and says so.

    Args:
        rank: k, the modes that are kept; at most `subset_size`.
        subset_size: m, the number of landmarks.
        every_n_steps: optimizer steps between the times of refreshes; the first period has more, see `last_due`.
        extension: how the eigenvectors reach the training points, see `choose_landmarks`.
        landmarks: which points become landmarks, see `choose_landmarks`.
        refresh: "every": at each of these times. "drift": at those where the kernel has moved, see `kernel_change`.
            "budget": at the first step from each of them on at which refreshes stay within a share of the run's time.
            "every" and "drift" are deterministic; "budget" goes by the clock, and a resumed run by the clock that it
            finds in its checkpoint.
        metric: "network": the kernel J J^T. "optimizer": J D J^T, which the steps of Adam or SOAP follow, see
            `optimizer_metric`; on interpolated or exact landmarks.
        budget: that share; a time in the first period is measured against the time that the whole run will take.
    """

    def __init__(
        self,
        rank: int = 64,
        subset_size: int = 1024,
        every_n_steps: int = 20,
        extension: str = "auto",
        landmarks: str = "auto",
        refresh: str = "every",
        budget: float = 0.1,
        metric: str = "network",
    ) -> None:
        if rank > subset_size:
            raise InputError(
                f"spectrum.rank={rank} is above spectrum.subset_size={subset_size}: "
                "a kernel on m landmarks has m modes at the most."
            )
        if refresh not in REFRESHES:
            raise InputError(f"spectrum.refresh={refresh!r} is not known; allowed: {', '.join(REFRESHES)}.")
        if metric not in METRICS:
            raise InputError(f"spectrum.metric={metric!r} is not known; allowed: {', '.join(METRICS)}.")
        if metric == "optimizer" and refresh == "drift":
            raise InputError(
                "spectrum.refresh=drift looks at the network's own kernel; use every with metric=optimizer."
            )
        self.metric = metric
        self.rank, self.subset_size, self.every_n_steps, self.extension = rank, subset_size, every_n_steps, extension
        self._placement = landmarks
        self.policy, self.budget = refresh, budget
        self.clock = Stopwatch()  # of the run; RunHistory stops it while it validates, and saves it
        self.probe_seconds = 0.0
        self.probes = 0
        self._last_seconds = 0.0
        self.refresh_work = 0.0  # of the last one, on the clock of `work_seconds`
        self._decided_at = -1
        self.spectrum: Spectrum | None = None  # on the landmarks
        self.initial: Spectrum | None = None  # the first one of the run, at all training points
        self.refresh_seconds = 0.0
        self.refreshes = 0
        self.failed_refreshes = 0
        self.refreshed_at = -1
        self._landmarks: Landmarks | None = None
        self._x: Tensor | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Choose the landmarks among the data module's training points."""
        if stage != "fit":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        parameter = next(pl_module.parameters())
        self._x = data.train_x.to(parameter.device, parameter.dtype)
        self._landmarks = replace(self.landmarks(data, self._x), shared=trainer.world_size > 1)

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
        if self.metric == "optimizer" and chosen.extension == "nystrom":
            raise InputError(
                "spectrum.metric=optimizer has no Nystroem extension; take spectrum.extension=interpolate or exact."
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
        assert self._x is not None
        self._x = self._x.to(next(pl_module.parameters()).dtype)  # 64-true makes the network double after `setup`
        if not _needs_spectrum(pl_module) and self.initial is None:
            self.refresh(trainer, pl_module)
            self._log(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Refresh when it is due, once per optimizer step (micro-batches of an accumulation call this too)."""
        step = trainer.global_step
        self.clock.start()
        if not _needs_spectrum(pl_module) or step == self._decided_at:
            return
        self._decided_at = step
        if self._due(trainer, pl_module):
            self.refresh_now(trainer, pl_module)

    def refresh_now(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """`refresh`, counted, timed and logged."""
        self.refreshed_at = trainer.global_step
        begun, work = time.perf_counter(), work_seconds(pl_module.device)
        succeeded = self.refresh(trainer, pl_module)
        self.refresh_work = work_seconds(pl_module.device) - work
        self._last_seconds = time.perf_counter() - begun
        self.refresh_seconds += self._last_seconds
        if succeeded:
            self.refreshes += 1
            self._log(trainer, pl_module)
        else:
            self.failed_refreshes += 1

    def _due(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        step = trainer.global_step
        due = last_due(step, self.every_n_steps)
        if self.spectrum is None:
            return True
        if self.policy == "budget":
            return due > self.refreshed_at and trainer.strategy.broadcast(self._within_budget(trainer, due))
        if step != due or self.policy == "every":
            return step == due
        # Where the last refresh failed and left the identity, nothing is there that could have moved.
        moved = not _preconditioner(pl_module).in_use.ready or self._has_moved(trainer, pl_module)
        return trainer.strategy.broadcast(moved)  # all ranks do what the first one found

    def _within_budget(self, trainer: pl.Trainer, due: int) -> bool:
        """Whether one more refresh, as dear as the last, keeps to the share."""
        elapsed = self.clock.elapsed()
        if due < self.every_n_steps and trainer.max_steps > 0:
            elapsed = (elapsed - self.refresh_seconds) / max(1, trainer.global_step) * trainer.max_steps
        return self.refresh_seconds + self._last_seconds <= self.budget * elapsed

    def _has_moved(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        """A cheap look at the kernel: one product with it."""
        assert self._landmarks is not None and self.spectrum is not None
        module: WideNetworkModule = pl_module  # type: ignore[assignment]
        begun = time.perf_counter()
        with torch.autocast(pl_module.device.type, enabled=False):
            change = kernel_change(module.network, self._landmarks.points, self.spectrum, seed=trainer.global_step)
        self.probe_seconds += time.perf_counter() - begun
        self.probes += 1
        log_scalars(trainer, {"spectrum/change": change})
        return not change <= MOST_CHANGE

    def refresh(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        """Recompute the spectrum at the present weights and pass it on; return whether that succeeded.

        Raises:
            InputError: it failed, and there is no earlier spectrum that the preconditioner could go on with.
        """
        module: WideNetworkModule = pl_module  # type: ignore[assignment]

        def compute() -> bool:
            with torch.random.fork_rng(), _busy(trainer):
                self._refresh(trainer, module)
            return True

        def goes_on() -> str | None:
            if module.preconditioner is not None and self.spectrum is not None:
                return module.preconditioner.goes_on
            return None if _needs_spectrum(module) else "the run goes on without one"

        failed = f"The spectrum refresh at step {trainer.global_step} failed"
        return bool(attempt(compute, module.device, failed, goes_on))

    def _refresh(self, trainer: pl.Trainer, module: WideNetworkModule) -> None:
        assert self._landmarks is not None and self._x is not None
        init = None if self.spectrum is None else self.spectrum.eigenvectors
        steps = _needs_spectrum(module) and self.metric == "optimizer"
        optimizer = trainer.optimizers[0] if steps else None
        spectrum = self._landmarks.spectrum(module.network, self.rank, init, optimizer=optimizer)
        if module.preconditioner is not None:
            module.preconditioner.take(spectrum, self._landmarks, module.network, self._x)
        guard: Guard | None = getattr(module, "guard", None)
        if guard is not None:
            guard.take(spectrum)
        if self.initial is None:
            self.initial = self._landmarks.extend(spectrum, self._x, module.network)
        self.spectrum = spectrum

    def spectrum_now(self, module: WideNetworkModule, optimizer: Optimizer | None = None) -> Spectrum:
        """At the present weights, kept nowhere; with an `optimizer`, of J D J^T, D the metric of its steps.

        Raises:
            InputError: the optimizer has no such metric (`optimizer_metric`).
        """
        assert self._landmarks is not None
        init = None if self.spectrum is None else self.spectrum.eigenvectors
        return self._landmarks.spectrum(module.network, self.rank, init, optimizer=optimizer)

    @property
    def share(self) -> float:
        """Of the run's time that went into refreshes and the looks that decide on them."""
        return (self.refresh_seconds + self.probe_seconds) / max(self.clock.elapsed(), 1e-9)

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Straight to the loggers: Lightning would repeat what `self.log` gets until the next refresh."""
        if self.spectrum is None:
            return
        spectral_map = None if pl_module.preconditioner is None else _preconditioner(pl_module).effective_map
        times = {"time/refresh_seconds": self._last_seconds, "time/refresh_share": self.share} if self.refreshes else {}
        log_spectrum(trainer, self.spectrum, spectral_map, times)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives; loads under ``weights_only=True``."""
        return {
            "spectrum": self.spectrum.state_dict() if self.spectrum else None,
            "initial": self.initial.state_dict() if self.initial else None,
            "refresh_seconds": self.refresh_seconds,
            "refreshes": self.refreshes,
            "failed_refreshes": self.failed_refreshes,
            "refreshed_at": self.refreshed_at,
            "decided_at": self._decided_at,
            "probes": self.probes,
            "probe_seconds": self.probe_seconds,
            "last_seconds": self._last_seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the next refresh then starts from the same basis."""
        restore = Spectrum.from_state_dict
        self.spectrum = restore(state_dict["spectrum"]) if state_dict["spectrum"] else None
        self.initial = restore(state_dict["initial"]) if state_dict["initial"] else None
        self.refresh_seconds = state_dict["refresh_seconds"]
        self.refreshes = state_dict["refreshes"]
        self.failed_refreshes = state_dict["failed_refreshes"]
        self.refreshed_at, self._decided_at = state_dict["refreshed_at"], state_dict["decided_at"]
        self.probes, self.probe_seconds = state_dict["probes"], state_dict["probe_seconds"]
        self._last_seconds = state_dict["last_seconds"]


def _needs_spectrum(pl_module: pl.LightningModule) -> bool:
    return pl_module.preconditioner is not None and _preconditioner(pl_module).needs_spectrum


def _preconditioner(pl_module: pl.LightningModule) -> Preconditioner:
    return cast(Preconditioner, pl_module.preconditioner)


def _busy(trainer: pl.Trainer) -> Any:
    """The progress bar's own spinner for work that takes long, where the bar has one."""
    busy = getattr(trainer.progress_bar_callback, "busy", None)
    return busy("refreshing the spectrum") if busy else nullcontext()
