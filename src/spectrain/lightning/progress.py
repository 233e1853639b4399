"""One progress display: a live bar on a terminal, plain lines in a file."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from spectrain.metrics import Quality

LINES_PER_RUN = 10
BUSY_AFTER_SECONDS = 2.0


class TrainingProgress(pl.callbacks.ProgressBar):
    """Loss and quality of the run as it goes, and a spinner for any refresh over two seconds.

    Args:
        live: a bar that is redrawn (True) or plain lines (False); None looks whether standard output is a terminal.
    """

    def __init__(self, live: bool | None = None) -> None:
        super().__init__()
        self._live = sys.stdout.isatty() if live is None else live
        self._console = Console(highlight=False)
        self._progress: Progress | None = None
        self._task: Any = None
        self._begun = (0, 0.0)  # (step, time)
        self._enabled = True

    def disable(self) -> None:
        """Show nothing; Lightning calls it on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show progress again."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the bar."""
        self._begun = (trainer.global_step, time.perf_counter())
        if self._live and self._enabled:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(
                SpinnerColumn(), *columns, TextColumn("{task.fields[metrics]}"), refresh_per_second=4
            )
            self._progress.start()
            self._task = self._progress.add_task(
                "training", total=trainer.max_steps, completed=trainer.global_step, metrics=""
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, or print one of about ten lines."""
        step, total = trainer.global_step, trainer.max_steps
        if self._progress is not None:
            if step % 5 == 0 or step == total:
                self._progress.update(self._task, completed=step, metrics=self._metrics(trainer))
        elif self._enabled and (step % max(1, total // LINES_PER_RUN) == 0 or step == total):
            begun_step, begun_time = self._begun
            elapsed = time.perf_counter() - begun_time
            left = elapsed / max(1, step - begun_step) * (total - step)
            print(
                f"step {step:>6}/{total}  {self._metrics(trainer)}  {elapsed:.0f} s, about {left:.0f} s left",
                flush=True,
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar down, with its last state left on the screen."""
        if self._progress is not None:
            self._progress.update(self._task, completed=trainer.global_step, metrics=self._metrics(trainer))
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _metrics(self, trainer: pl.Trainer) -> str:
        values = trainer.callback_metrics
        parts = []
        if "train/loss" in values:
            parts.append(f"loss {float(values['train/loss']):.3e}")
        quality: Quality | None = getattr(trainer.lightning_module, "quality", None)
        if quality is not None and f"val/{quality.name}" in values:
            parts.append(f"{quality.label} {quality.text(float(values[f'val/{quality.name}']))}")
        return "  ".join(parts)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Say `what` is under way once it has taken over two seconds."""
        shown: list[Any] = []

        def show() -> None:
            if self._progress is not None:
                shown.append(self._progress.add_task(f"{what} ...", total=None, metrics=""))
            elif self._enabled:
                print(f"{what} ...", flush=True)

        timer = threading.Timer(BUSY_AFTER_SECONDS, show)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            if self._progress is not None:
                for task in shown:
                    self._progress.remove_task(task)
