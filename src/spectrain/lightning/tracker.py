"""A tracker that can do no harm: what is slow, full, away or broken in it stays in it."""

import queue
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

# Entries that wait for a slow tracker; what comes on top is dropped. At a few hundred bytes each: some MiB.
MOST_WAITING = 10_000
# What the end of a run, its results being on disk, waits for the tracker: this share of the run, or these seconds.
SHARE, SECONDS = 0.01, 5.0


class Tracker(Logger):
    """Hands everything to `inner` on a thread of its own, in order; errors there are said once and end nothing.

    The training step pays for putting an entry into a queue, whatever `inner` does. What `inner` has not taken at the
    end is dropped after a limited wait, with a line that says how much.

    Args:
        inner: any logger.
        first_step: rows of earlier steps were logged before the run was resumed, and are left out: steps never go back.
        patience: seconds that the end of the run waits at least.
    """

    def __init__(self, inner: Logger, first_step: int = 0, patience: float = SECONDS) -> None:
        super().__init__()
        self.inner, self.first_step, self.patience = inner, first_step, patience
        self.failed, self.dropped, self.left = 0, 0, 0
        self._waiting: queue.Queue[Callable[[], object] | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._begun = time.monotonic()
        self._closed = False

    @property
    def name(self) -> str | None:
        """Of the tracker."""
        return self.inner.name

    @property
    def version(self) -> int | str | None:
        """Of the tracker."""
        return self.inner.version

    @property
    def save_dir(self) -> str | None:
        """Of the tracker."""
        return self.inner.save_dir

    @rank_zero_only
    def put(self, job: Callable[[], object], wait: float = 0.0) -> None:
        """Call `job` on the tracker's thread, after those before it; dropped if there is no place in `wait` seconds."""
        if self._closed:
            return
        try:
            self._waiting.put(job, timeout=wait)
        except queue.Full:
            self.dropped += 1
        if self._thread is None:  # not before: the process may fork first
            self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
            self._thread.start()

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """As any logger's; returns at once."""
        if step is None or step >= self.first_step:
            self.put(partial(self.inner.log_metrics, dict(metrics), step))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """As any logger's; returns at once."""
        self.put(partial(self.inner.log_hyperparams, params, *args, **kwargs))

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """As any logger's; returns at once."""
        self.put(partial(self.inner.after_save_checkpoint, checkpoint_callback))

    def finalize(self, status: str) -> None:
        """Nothing yet: the figures come after Lightning's end."""

    def close(self, status: str = "success", last: Callable[[], object] | None = None) -> None:
        """Finalize the tracker, call `last`, wait within limits, say what was not taken. Later entries are ignored."""
        patience = max(self.patience, SHARE * (time.monotonic() - self._begun))
        until = time.monotonic() + patience
        jobs: list[Callable[[], object] | None] = [self.inner.save, partial(self.inner.finalize, status), last]
        for job in filter(None, jobs):
            self.put(job, wait=max(0.0, until - time.monotonic()))
        self._closed = True
        while self._waiting.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)
        self.left = self._waiting.unfinished_tasks
        if self.left:
            self._say(f"is slow: {self.left} entries had not reached it {patience:.0f} s after the run's end")
            self._waiting.queue.clear()
        self._waiting.put_nowait(None)  # ends the thread: there is room, all was taken or cleared
        if self.failed > 1 or self.dropped:
            self._say(f"did not take {self.failed + self.dropped} entries")

    def _work(self) -> None:
        while True:
            job = self._waiting.get()
            if job is None:
                return
            try:
                job()
            except Exception as error:
                self.failed += 1
                if self.failed == 1:
                    self._say(f"failed ({type(error).__name__}: {_short(error)}); the run goes on")
            finally:
                self._waiting.task_done()

    def _say(self, what: str) -> None:
        name = type(self.inner).__name__
        print(f"warning: the tracker {name} {what}. metrics.csv has all numbers.", file=sys.stderr, flush=True)


def _short(error: BaseException) -> str:
    """Its first line."""
    return next(iter(str(error).strip().splitlines()), "no message")[:200]
