"""What an entry for a tracker costs the training step, and the tracker's own thread, in CPU time.

python scripts/benchmarks/tracker_overhead.py
"""

import tempfile
import threading
import time
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger

from spectrain.lightning import Tracker, wandb_logger

ENTRIES = 2000
ROW = {"train/loss": 0.1, "optimizer/lr": 0.01, "epoch": 0.0}


def measure(inner: Any) -> tuple[float, float]:
    """Microseconds of CPU for each entry: in the thread that trains, and in the tracker's."""
    tracker, marks, done = Tracker(inner, patience=60), [], threading.Event()
    tracker.log_metrics(ROW, 0)
    tracker.put(lambda: marks.append(time.thread_time()))
    begun = time.thread_time()
    for step in range(1, ENTRIES + 1):
        tracker.log_metrics(ROW, step)
    paid = time.thread_time() - begun
    tracker.put(lambda: (marks.append(time.thread_time()), done.set()))
    done.wait()
    tracker.close(last=getattr(inner.experiment, "finish", None))
    return 1e6 * paid / ENTRIES, 1e6 * (marks[1] - marks[0]) / ENTRIES


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for logger in (wandb_logger(folder), TensorBoardLogger(folder, name="tensorboard", version="")):
            step, own = measure(logger)
            print(f"{type(logger).__name__}: {step:.1f} us in the step, {own:.0f} us in its own thread")
