"""One cell of a race: a method on a task with a seed and a trial's value, trained in a process of its own."""

import contextlib
import csv
import hashlib
import json
import multiprocessing
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spectrain.cli.run_folder import finished_summary
from spectrain.cli.train import main
from spectrain.studies.budget import steps_to_fill

# Libraries read these when they start, so that a cell is charged one thread's CPU time whatever the machine has.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Cell:
    """What is trained; `words` are the overrides of task, method and batch size, `rate` is the value of the key `knob`.

    `batch` names the batch size: "own" as task and method have it, "all", or a number.
    """

    task: str
    method: str
    words: tuple[str, ...]
    seed: int
    rate: float
    steps: int
    figures: bool = False
    knob: str = "optimizer.lr"
    batch: str = "own"
    evaluations: int = 80

    @property
    def trial(self) -> tuple[float, str]:
        """What one method tries several of."""
        return self.rate, self.batch

    def overrides(self) -> list[str]:
        """What the training program is told, except where to write."""
        every = max(1, self.steps // self.evaluations)
        return [
            *self.words,
            f"seed={self.seed}",
            f"{self.knob}={self.rate!r}",
            f"trainer.max_steps={self.steps}",
            f"trainer.val_check_interval={every}",
            "trainer.accelerator=cpu",
            "logger=none",
            "baseline=false",
            f"figures={str(self.figures).lower()}",
        ]

    def command(self) -> str:
        """What a person types to repeat it, with as many threads, on whose number the last digits depend."""
        return f'OMP_NUM_THREADS=1 make train ARGS="{shlex.join(self.overrides())}"'

    def folder(self, place: Path) -> Path:
        """Its run folder: another one for any other settings."""
        digest = hashlib.sha256(json.dumps(self.overrides()).encode()).hexdigest()[:8]
        return place / "cells" / self.task / f"{self.method}-seed{self.seed}-lr{self.rate:g}-{digest}"


@dataclass(frozen=True)
class Result:
    """What came of a cell: its curve, one row per evaluation, or why it failed."""

    cell: Cell
    folder: Path
    curve: tuple[dict[str, float], ...] = ()
    error: str = ""

    @property
    def cpu_seconds(self) -> float:
        """Of training and refreshes; evaluations are not charged."""
        return self.curve[-1]["cpu_seconds"] if self.curve else float("nan")

    def steps_to_fill(self, seconds: float) -> int:
        """How many steps of this method take that long, by its second half; the first has the most refreshes."""
        points = {int(row["step"]): row["cpu_seconds"] for row in self.curve}
        last = max(points)  # a callback may have ended it early
        half = max(step for step in points if step <= last / 2)
        return steps_to_fill(seconds, (half, points[half]), (last, points[last]))


def run_cell(cell: Cell, place: Path) -> Result:
    """Train it, unless it has been; a failed cell is a result too, and is not tried again."""
    folder = cell.folder(place)
    found = finished(cell, folder)
    if found is not None:
        return found
    shutil.rmtree(folder, ignore_errors=True)  # of a race that was stopped in the middle of it
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_name(f"{folder.name}.log")
    code = train_apart([*cell.overrides(), f"paths.run_dir='{folder}'"], log)
    if code < 0 or code in (130, 138, 143):  # stopped from outside
        raise KeyboardInterrupt
    if code != 0:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        error = next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "no message")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "failed.txt").write_text(error.removeprefix("error: ") + "\n")
    return finished(cell, folder) or Result(cell, folder, error="it left no history")


def train_apart(words: Sequence[str], log: Path) -> int:
    """Run the training program with one thread in a process of its own; its exit code. What it says goes into `log`.

    The process is forked from one that has imported the program and done nothing: importing takes as long as some
    cells train.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with _environment(ONE_THREAD):
        process = context.Process(target=_train, args=(list(words), str(log)))
        process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _train(words: list[str], log: str) -> None:
    with open(log, "w", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            sys.argv[:] = ["spectrain-train", *words]
            main()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def finished(cell: Cell, folder: Path) -> Result | None:
    """The result of a cell that has been run."""
    if (folder / "failed.txt").exists():
        return Result(cell, folder, error=(folder / "failed.txt").read_text().strip())
    if finished_summary(folder) is None or not (folder / "history.csv").exists():
        return None
    with (folder / "history.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return Result(cell, folder, curve=tuple(rows)) if rows else None
