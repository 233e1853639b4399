"""A progress line for work over two seconds: a bar on a terminal, now and then a plain line in a file."""

import sys
import time

_QUIET_SECONDS = 2.0
_TERMINAL_EVERY = 0.2
_FILE_EVERY = 30.0


class Progress:
    """Counts work done towards a total, in any unit, and prints to stderr how far it is and how long it will take."""

    def __init__(self, title: str, total: float, *, show: bool = True) -> None:
        self._title, self._total, self._show = title, max(total, 1e-30), show
        self._done = 0.0
        self._start = self._last = time.monotonic()
        self._printed = False

    def add(self, work: float) -> None:
        """Some more is done."""
        self._done += work
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        quiet = _QUIET_SECONDS if not self._printed else _TERMINAL_EVERY if terminal else _FILE_EVERY
        if not self._show or now - self._last < quiet:
            return
        self._last, self._printed = now, True
        share = min(1.0, self._done / self._total)
        left = (now - self._start) * (1 - share) / max(share, 1e-9)
        text = f"{self._title}: {100 * share:3.0f} %, about {left:.0f} s left"
        print(f"\r{text}\033[K" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Clear the bar."""
        if self._printed and sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
