"""Ctrl-C ends a run between two steps, with a checkpoint that resumes exactly."""

import signal
from types import FrameType
from typing import Any

import pytorch_lightning as pl


class GracefulInterrupt(pl.Callback):
    """The first Ctrl-C finishes the step under way, validates, saves and stops; a second one stops at once.

    A signal may arrive anywhere, also in the middle of an optimizer's update, where no state is worth saving. Stopping
    early makes Lightning validate, and the validation makes ModelCheckpoint write ``last.ckpt``.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self.begun = False  # all of a checkpoint has been restored, and training goes on
        self._previous: Any = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signal."""
        try:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        except ValueError:  # not the main thread: nobody can press Ctrl-C there
            self._previous = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Errors from here on are no longer about a checkpoint."""
        self.begun = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        print("\nStopping after this step; press Ctrl-C again to stop at once without saving.", flush=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after the step: gradients that are still being accumulated are in no checkpoint."""
        if trainer.world_size > 1:  # the signal reaches the processes at different steps
            self.interrupted = trainer.strategy.reduce_boolean_decision(self.interrupted, all=False)
        if self.interrupted and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            trainer.should_stop = True

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signal back."""
        self.give_back()

    def give_back(self) -> None:
        """Restore the handler; Lightning calls no teardown after an error and puts back the handlers it found."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
