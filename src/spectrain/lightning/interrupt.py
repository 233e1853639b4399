"""Ctrl-C, or a cluster that wants its machine back, ends a run between two steps; the checkpoint resumes exactly."""

import signal
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch

# Of a person, of whoever ends processes (also SLURM, at a preemption or requeue), of scripts/slurm/train.sbatch.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def was_interrupted(trainer: pl.Trainer) -> bool:
    """Whether a signal stopped the run before its end."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return any(bool(c.interrupted) for c in callbacks if isinstance(c, GracefulInterrupt))


class GracefulInterrupt(pl.Callback):
    """The first signal finishes the step under way, validates, saves and stops; a second Ctrl-C stops at once.

    A signal may arrive anywhere, also in the middle of an optimizer's update, where no state is worth saving. Stopping
    early makes Lightning validate, and the validation makes ModelCheckpoint write ``last.ckpt``. Lightning's own answer
    to SIGUSR1 under SLURM saves wherever the signal arrives, and that to SIGTERM not at all: both are replaced.
    """

    def __init__(self) -> None:
        self.interrupted = 0  # the signal's number, which all ranks know; of several the largest
        self._received = 0  # by this rank: a signal may arrive while the ranks agree about earlier ones
        self._alone = True
        self.begun = False  # all of a checkpoint has been restored, and training goes on
        self._previous: dict[signal.Signals, Any] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals."""
        self._alone = trainer.world_size == 1
        self._previous = {number: signal.getsignal(number) for number in SIGNALS}
        self._take_over()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Again: Lightning has set its handler of SIGTERM in the meantime. Errors no longer are about a checkpoint."""
        self.begun = True
        self._take_over()

    def _take_over(self) -> None:
        try:
            for number in SIGNALS:
                signal.signal(number, self._handle)
        except ValueError:  # not the main thread: no signal arrives there
            self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self._received:
            what = "" if number == signal.SIGINT else f"{signal.Signals(number).name}: "
            print(f"\n{what}Stopping after this step; press Ctrl-C again to stop at once without saving.", flush=True)
        self._received = max(self._received, number)
        if self._alone:
            self.interrupted = self._received

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log at the steps at which an uninterrupted run logs: Lightning's own count loses one at a stop."""
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after the step: gradients that are still being accumulated are in no checkpoint."""
        self._agree(trainer)
        if self.interrupted and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A signal after the last step: all ranks end alike."""
        self._agree(trainer)

    def _agree(self, trainer: pl.Trainer) -> None:
        """The largest signal of any rank: it reaches them at different steps, or one of them only."""
        if not self._alone:
            number = torch.tensor(self._received, device=trainer.strategy.root_device)
            self.interrupted = int(trainer.strategy.reduce(number, reduce_op="max"))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        self.give_back()

    def give_back(self) -> None:
        """Restore the handlers; Lightning calls no teardown after an error and puts back the handlers it found."""
        for number, handler in self._previous.items():
            if handler is not None:  # not one of Python's
                signal.signal(number, handler)
        self._previous = {}
