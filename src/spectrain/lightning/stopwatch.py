"""The clock of a run."""

import time

import torch


def work_seconds(device: torch.device) -> float:
    """A clock to compare work by: CPU seconds, which other programs stretch little; on a GPU wall seconds, when done.

    The Stopwatch has wall seconds, for what a person waits.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


class Stopwatch:
    """Wall and CPU seconds of this process between `start` and `stop`, summed."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self._since: tuple[float, float] | None = None

    def start(self) -> None:
        """Run (again); does nothing when it is running."""
        if self._since is None:
            self._since = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        """Pause; does nothing when it is not running."""
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since[0]
            self.cpu_seconds += time.process_time() - self._since[1]
            self._since = None

    def elapsed(self) -> float:
        """Wall seconds up to now."""
        return self.seconds + (0.0 if self._since is None else time.perf_counter() - self._since[0])
