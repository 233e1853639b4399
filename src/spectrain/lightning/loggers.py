"""Where scalars go in every run: metrics.csv."""

import csv
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only


class MetricsCSV(Logger):
    """One row per logged step in ``metrics.csv``, appended as the run goes.

    A resumed run keeps the rows of its earlier part up to the step it resumes from. (Lightning's own CSVLogger deletes
    them.) A new column rewrites the file once.
    """

    def __init__(self, run_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"
        self._rows: list[dict[str, Any]] = []
        self._columns: list[str] = ["step"]
        self._written = 0
        self._first_step: int | None = None

    @property
    def name(self) -> str:
        """Of this logger."""
        return "metrics"

    @property
    def version(self) -> str:
        """None is kept: a run folder holds one run."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add `metrics` to the row of `step`."""
        step = step or 0
        metrics = {name: value for name, value in metrics.items() if name != "epoch"}  # there is one, endless
        if self._first_step is None:
            self._first_step = step
            self._read_earlier(step)
        if not self._rows or self._rows[-1]["step"] != step:
            self._rows.append({"step": step})
        self._rows[-1].update(metrics)
        new = [name for name in metrics if name not in self._columns]
        if new:
            self._columns += new
            self._written = 0

    @rank_zero_only
    def save(self) -> None:
        """Write what is not on disk yet; the last row stays open, since more may come for its step."""
        self._write(final=False)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write all."""
        self._write(final=True)

    def _write(self, final: bool) -> None:
        upto = len(self._rows) if final else len(self._rows) - 1
        if upto <= self._written:
            return
        fresh = self._written == 0
        target = self.path.with_suffix(".tmp") if fresh else self.path
        with target.open("w" if fresh else "a", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            if fresh:
                writer.writeheader()
            writer.writerows(self._rows[self._written : upto])
        if fresh:
            os.replace(target, self.path)  # a full disk never costs the rows that were there
        self._written = upto

    def _read_earlier(self, step: int) -> None:
        if not self.path.exists():
            return
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            self._columns = list(reader.fieldnames or self._columns)
            rows: list[dict[str, Any]] = [{**row, "step": int(row["step"])} for row in reader if row["step"].isdigit()]
        self._rows = [row for row in rows if row["step"] <= step]


def last_logged_step(run_dir: str | Path) -> int:
    """Of the earlier part of a run that is resumed in `run_dir`; 0 for a new one."""
    path = Path(run_dir) / "metrics.csv"
    if not path.exists():
        return 0
    with path.open(newline="") as file:  # a run that was killed may have left half a line
        return max((int(row["step"]) for row in csv.DictReader(file) if (row["step"] or "").isdigit()), default=0)
