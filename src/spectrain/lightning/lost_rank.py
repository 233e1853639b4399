"""One of several processes dies or hangs: the others end, and say which it was."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist
from torch.distributed import distributed_c10d

from spectrain.preconditioners.ranks import is_of_a_collective

LOST = 3  # exit code
POLL, GRACE = 0.5, 3.0  # seconds: between looks at the other processes, and for ranks to report the same failure


class LostRankError(RuntimeError):
    """Another process of the run has died or hangs; the message says which."""


@contextmanager
def watching(trainer: pl.Trainer) -> Iterator[None]:
    """Run what stands inside; end this process when one that it cannot go on without has died.

    Raises:
        LostRankError: a collective failed because of another rank.
    """
    if trainer.world_size == 1:
        yield
        return
    watch = _Watch(trainer)
    threading.Thread(target=watch.look, name="lost-rank", daemon=True).start()
    try:
        yield
    except RuntimeError as error:
        if not is_of_a_collective(error):
            raise
        raise LostRankError(watch.sentence()) from error
    finally:
        watch.ended.set()


class _Watch:
    """Of the first process over those that Lightning started from it, and of the others over their parent.

    A process waits for the others within torch.distributed, which may tell it late or, where it is computing, not at
    all: hence a thread.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self.trainer, self.ended, self.parent = trainer, threading.Event(), os.getppid()
        self.store: Any = None  # kept: Lightning lets go of the process group before it passes an error on

    def look(self) -> None:
        """Until `ended`."""
        while not self.ended.wait(POLL):
            if self.store is None and dist.is_initialized():
                self.store = distributed_c10d.PrefixStore("spectrain/failed", distributed_c10d._get_default_store())
            for rank, code in self.dead_children():
                how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}; see its message"
                self.end(f"rank {rank} of {self.trainer.world_size} {how}. {_advice(self.trainer)}", max(code, 0))
            if os.getppid() != self.parent:
                of = f"rank {self.trainer.global_rank} of {self.trainer.world_size}"
                self.end(f"rank 0 or the launcher, which started {of}, has died. {_advice(self.trainer)}", 0)

    def end(self, sentence: str, code: int) -> None:
        """From the thread: the main one may be inside a collective, which no exception reaches."""
        print(f"error: {sentence}", file=sys.stderr, flush=True)
        self.kill_children()
        os._exit(code or LOST)

    def sentence(self) -> str:
        """For a collective that failed: which ranks do not report it, as every one that lives and waits must."""
        silent = self.silent_ranks()
        self.kill_children()
        names = ", ".join(map(str, silent)) or "unknown"
        of = f"{names} of {self.trainer.world_size}"
        return f"rank {of} does not answer: it has died or hangs. {_advice(self.trainer)}"

    def silent_ranks(self) -> list[int]:
        """By the store of torch.distributed, which lives in the process of rank 0."""
        mine, all_ranks = self.trainer.global_rank, range(self.trainer.world_size)
        if mine == 0 and self.store is None:  # they have not even met
            return [*all_ranks[1:]]
        heard: list[int] = []
        asking = threading.Thread(target=self._ask, args=(heard,), daemon=True)
        asking.start()
        asking.join(3 * GRACE)  # a process that is stopped keeps its store's connections, and does not answer
        return [rank for rank in all_ranks if rank not in heard] if mine in heard else [0]

    def _ask(self, heard: list[int]) -> None:
        """Report, and put into `heard` the ranks that reported the same."""
        try:
            self.store.set(str(self.trainer.global_rank), "1")
            time.sleep(GRACE)
            heard += [rank for rank in range(self.trainer.world_size) if self.store.check([str(rank)])]
        except (RuntimeError, OSError, AttributeError):
            return

    def dead_children(self) -> list[tuple[int, int]]:
        """(rank, exit code) of those that did not end well."""
        codes = [(rank, child.poll()) for rank, child in enumerate(self.children, start=self.trainer.global_rank + 1)]
        return [(rank, code) for rank, code in codes if code]

    def kill_children(self) -> None:
        """Nobody else would end one that hangs."""
        for child in self.children:
            child.kill()

    @property
    def children(self) -> list["Popen[bytes]"]:
        """The processes that Lightning started from this one."""
        return list(getattr(self.trainer.strategy.launcher, "procs", []))


def _advice(trainer: pl.Trainer) -> str:
    folders = {Path(getattr(callback, "dirpath", None) or "") for callback in trainer.checkpoint_callbacks}
    saved = next((folder / "last.ckpt" for folder in folders if (folder / "last.ckpt").exists()), None)
    return f"Resume with ckpt_path={saved}." if saved else "There is no checkpoint yet; start the run again."
