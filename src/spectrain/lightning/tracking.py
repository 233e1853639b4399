"""What is logged, for every logger alike: the one seam between a run and its trackers.

Scalars go to all loggers by `log_scalars` (or Lightning's own `self.log`), so that metrics.csv, TensorBoard and W&B
show the same. The rest goes where it can be shown: histograms, figures, the table of modes, checkpoints, alerts.
"""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import wandb
from matplotlib.figure import Figure
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException  # type: ignore[attr-defined]
from torch import Tensor

from spectrain.lightning.tracker import Tracker
from spectrain.lightning.wandb_run import WandbRun
from spectrain.spectrum import Spectrum
from spectrain.spectrum.measures import condition_number, effective_rank, participation_ratio

BINS = 32


def log_scalars(trainer: pl.Trainer, values: Mapping[str, float]) -> None:
    """To all loggers, at the present step. Lightning's `self.log` would repeat them until the next call.

    Saved at once, as Lightning does: a run killed right after a checkpoint resumes behind this step.
    """
    for logger in trainer.loggers:
        logger.log_metrics(dict(values), step=trainer.global_step)
        logger.save()


def trackers(loggers: Iterable[Logger]) -> list[Tracker]:
    """The loggers that can show more than scalars."""
    return [logger for logger in loggers if isinstance(logger, Tracker)]


def log_spectrum(
    trainer: pl.Trainer, spectrum: Spectrum, spectral_map: Callable[[Tensor], Tensor] | None, more: Mapping[str, float]
) -> None:
    """Condition numbers, effective rank, the largest eigenvalue, the resolved modes and `more`; both histograms.

    The histograms are of log10: eigenvalues span decades. Without a map there is no spectrum after it.
    """
    values = {"spectrum/condition_before": condition_number(spectrum)}
    logs = {"spectrum/log10_eigenvalues": _log10(spectrum.eigenvalues)}
    if spectral_map is not None:
        values["spectrum/condition_after"] = condition_number(spectrum, spectral_map)
        logs["spectrum/log10_mapped_eigenvalues"] = _log10(spectrum.eigenvalues * spectrum.ratio(spectral_map))
    if spectrum.resolved:
        values["spectrum/effective_rank"] = effective_rank(spectrum)
        values["spectrum/participation_ratio"] = participation_ratio(spectrum)
    values["spectrum/largest_eigenvalue"] = float(spectrum.eigenvalues[0])
    values["spectrum/resolved_modes"] = float(spectrum.resolved)
    log_scalars(trainer, {**values, **more})
    step = trainer.global_step
    for tracker in trackers(trainer.loggers):
        if step >= tracker.first_step:
            tracker.put(partial(_histograms, tracker.inner, logs, step))


def _log10(values: Tensor) -> np.ndarray:
    """Of those that have one."""
    logs: np.ndarray = values[values > 0].double().log10().cpu().numpy()
    return logs


def _histograms(inner: Any, logs: Mapping[str, np.ndarray], step: int) -> None:
    if isinstance(inner, WandbRun):
        made = {name: wandb.Histogram(np_histogram=np.histogram(v, BINS)) for name, v in logs.items() if len(v)}
        inner.log_metrics(made, step)
    elif isinstance(inner, TensorBoardLogger):
        for name, values in logs.items():
            if len(values):
                inner.experiment.add_histogram(name, values, step)


def write_modes(folder: Path, modes: Mapping[str, list[float]]) -> None:
    """modes.csv: the table of modes, for those without a tracker."""
    with (folder / "modes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(modes)
        writer.writerows(zip(*modes.values(), strict=True))


def show(
    loggers: Iterable[Logger],
    summary: Mapping[str, Any],
    drawn: list[tuple[str, Path, Figure]],
    modes: Mapping[str, list[float]] | None = None,
    *,
    moving: Sequence[Path] = (),
    step: int,
) -> None:
    """Send the end of a run to its trackers and close them: figures, animations, the table of modes, the summary."""
    for tracker in trackers(loggers):
        inner: Any = tracker.inner
        if isinstance(inner, WandbRun):
            tracker.put(partial(_show_wandb, inner, summary, drawn, modes, moving, step))
        elif isinstance(inner, TensorBoardLogger):
            tracker.put(partial(_show_tensorboard, inner, drawn, step))
        _close(tracker)
        if isinstance(inner, WandbRun) and (command := inner.sync_command(bool(tracker.left))):
            print(f"to see the run in Weights & Biases: {command}")


def close(loggers: Iterable[Logger], exit_code: int = 0) -> None:
    """Close the trackers among them."""
    for tracker in trackers(loggers):
        _close(tracker, exit_code)


def _close(tracker: Tracker, exit_code: int = 0) -> None:
    """W&B's run is finished now: a later job of a sweep must not log into it."""
    inner: Any = tracker.inner
    finish = partial(inner.experiment.finish, exit_code=exit_code) if isinstance(inner, WandbRun) else None
    tracker.close("failed" if exit_code else "success", finish)


def _show_wandb(
    inner: WandbRun, summary: Mapping[str, Any], drawn: Any, modes: Any, moving: Sequence[Path], step: int
) -> None:
    media: dict[str, Any] = {f"figures/{name}": wandb.Image(str(path)) for name, path, _ in drawn}
    media |= {f"figures/{path.stem}_over_time": wandb.Video(str(path), format="gif") for path in moving}
    if modes is not None:
        rows = [[v if math.isfinite(v) else None for v in row] for row in zip(*modes.values(), strict=True)]
        media["spectrum/modes"] = wandb.Table(columns=list(modes), data=rows)
    inner.log_metrics(media, step)
    inner.experiment.summary.update({f"final/{key}": value for key, value in summary.items()})


def _show_tensorboard(inner: TensorBoardLogger, drawn: Any, step: int) -> None:
    for name, _, figure in drawn:
        inner.experiment.add_figure(f"figures/{name}", figure, step)


class Alerts(pl.Callback):
    """Tells the trackers why a run ended early: an alert for an error such as a loss that is nan, none for Ctrl-C."""

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Alert, and close: nothing comes after it."""
        preempted = isinstance(exception, SIGTERMException)
        if not isinstance(exception, Exception) and not preempted:
            return
        for tracker in trackers(trainer.loggers):
            inner: Any = tracker.inner
            if isinstance(inner, WandbRun):
                run = inner.experiment
                if preempted:
                    tracker.put(run.mark_preempting)
                else:
                    tracker.put(partial(run.alert, "The run stopped", str(exception), level="ERROR"))
            elif isinstance(inner, TensorBoardLogger) and not preempted:
                tracker.put(partial(inner.experiment.add_text, "alert", str(exception), trainer.global_step))
            _close(tracker, exit_code=1)
