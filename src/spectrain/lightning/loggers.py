"""Where scalars go in every run: metrics.csv."""

import csv
import io
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn


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
        self._written = 0  # rows on disk that are closed, and where they end
        self._end = 0
        self.failed: OSError | None = None
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
        """Write what is not on disk yet, and the last row as far as it is known: more may come for its step.

        A disk that takes no more does not end the run: that is said once, the rows are kept, and every later call tries
        again; `failed` holds the error until one goes well.
        """
        if self._rows:
            try:
                self._write()
            except OSError as error:
                if self.failed is None:
                    rank_zero_warn(f"{self.path} cannot be written ({error.strerror}); the run goes on without it.")
                self.failed = error
            else:
                self.failed = None

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write all."""
        self.save()

    def _write(self) -> None:
        """The closed rows stay as they are on disk; the open one is written over until a later step closes it."""
        fresh = self._written == 0
        if fresh:
            target = self.path.with_suffix(".tmp")
            with target.open("wb") as file:
                self._end = file.write(self._text(self._rows[:-1], header=True))
                file.write(self._text(self._rows[-1:]))
            os.replace(target, self.path)  # a full disk never costs the rows that were there
        else:
            with self.path.open("r+b") as file:
                file.seek(self._end)
                closed = file.write(self._text(self._rows[self._written : -1]))
                file.write(self._text(self._rows[-1:]))
                file.truncate()
            self._end += closed
        self._written = len(self._rows) - 1

    def _text(self, rows: list[dict[str, Any]], header: bool = False) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()

    def _read_earlier(self, step: int) -> None:
        if not self.path.exists():
            return
        whole = self.path.read_text().rpartition("\n")[0]  # the process may have been killed in the middle of a row
        reader = csv.DictReader(whole.splitlines())
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
