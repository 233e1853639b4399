"""A hundred runs one after another in one process: what they take, they give back."""

import gc
import threading
import time
from pathlib import Path

import matplotlib.pyplot as plt
import psutil
import pytest
from program import train

KINDS = (
    ("preconditioner=sample",),
    ("preconditioner=parameter", "optimizer=sgd", "logger=tensorboard"),
    ("preconditioner=batch", "preconditioner.landmarks=16", "logger=csv"),
    ("preconditioner=none", "optimizer=adam", "figures=true"),
    ("preconditioner=auto", "guard=true", "baseline=true"),
)


def run(tmp_path: Path, number: int) -> None:
    train(tmp_path / f"{number}", *KINDS[number % len(KINDS)])


def counted() -> dict[str, int]:
    gc.collect()
    process = psutil.Process()
    return {
        "threads": threading.active_count(),
        "files": process.num_fds(),
        "figures": len(plt.get_fignums()),
        "children": len(process.children(recursive=True)),
        "MiB": process.memory_info().rss >> 20,
    }


def check(tmp_path: Path, first: int, last: int, growth: int) -> None:
    """`growth` MiB at the most from run `first` to run `last`; of the rest, nothing."""
    for number in range(first):
        run(tmp_path, number)
    before = counted()
    for number in range(first, last):
        run(tmp_path, number)
    after = counted()
    patience = time.monotonic() + 10  # the last tracker's thread may be on its way out
    while after["threads"] > before["threads"] and time.monotonic() < patience:
        time.sleep(0.1)
        after = counted()
    print(f"after {first} runs {before}, after {last} {after}")
    assert after.pop("MiB") <= before.pop("MiB") + growth
    assert after == before


def test_five_more_runs_leave_no_thread_and_no_file_open(tmp_path: Path) -> None:
    check(tmp_path, 5, 10, growth=20)


@pytest.mark.slow
def test_a_hundred_runs_do_not_grow(tmp_path: Path) -> None:
    check(tmp_path, 30, 100, growth=10)
