"""One cell of a race: a method on a task with a seed and a learning rate, trained in a process of its own."""

import csv
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Libraries read these when they start, so that a cell is charged one thread's CPU time whatever the machine has.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Cell:
    """What is trained; `words` are the overrides of task and method."""

    task: str
    method: str
    words: tuple[str, ...]
    seed: int
    rate: float
    steps: int
    figures: bool = False

    def overrides(self) -> list[str]:
        """What the training program is told, except where to write."""
        every = max(1, self.steps // 40)
        return [
            *self.words,
            f"seed={self.seed}",
            f"optimizer.lr={self.rate!r}",
            f"trainer.max_steps={self.steps}",
            f"trainer.val_check_interval={every}",
            "trainer.accelerator=cpu",
            "logger=none",
            "baseline=false",
            f"figures={str(self.figures).lower()}",
        ]

    def command(self) -> str:
        """What a person types to repeat it."""
        return f'make train ARGS="{shlex.join(self.overrides())}"'

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


def run_cell(cell: Cell, place: Path) -> Result:
    """Train it, unless it has been; a failed cell is a result too, and is not tried again."""
    folder = cell.folder(place)
    found = finished(cell, folder)
    if found is not None:
        return found
    shutil.rmtree(folder, ignore_errors=True)  # of a race that was stopped in the middle of it
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "spectrain.cli.train", *cell.overrides(), f"paths.run_dir='{folder}'"]
    done = subprocess.run(command, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True)
    if done.returncode < 0 or done.returncode in (130, 143):  # stopped from outside
        raise KeyboardInterrupt
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        error = next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "no message")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "failed.txt").write_text(error.removeprefix("error: ") + "\n")
    return finished(cell, folder) or Result(cell, folder, error="it left no history")


def finished(cell: Cell, folder: Path) -> Result | None:
    """The result of a cell that has been run."""
    if (folder / "failed.txt").exists():
        return Result(cell, folder, error=(folder / "failed.txt").read_text().strip())
    if not (folder / "summary.json").exists() or not (folder / "history.csv").exists():
        return None
    with (folder / "history.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return Result(cell, folder, curve=tuple(rows)) if rows else None
