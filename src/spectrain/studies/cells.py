"""The parts of a study, each computed once and kept, so that a stopped study goes on where it was."""

import os
import re
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from spectrain.errors import InputError


@dataclass(frozen=True)
class Trained:
    """One run of the training program: the columns of its history.csv, and its summary.json."""

    history: Mapping[str, np.ndarray]
    summary: Mapping[str, Any]


# Trains with these overrides in this folder, or reads what lies there if that run was finished.
Train = Callable[[Sequence[str], Path], Trained]


class Cells:
    """Computes the cells of a study, and keeps what came of each in `folder`.

    `train` runs the training program, for `train()`. `total`, which the study sets, is for the progress lines.
    """

    def __init__(self, folder: Path, train: Train | None = None, say: Callable[[str], None] = print) -> None:
        self.folder, self.total = folder, 0
        self._train, self._say, self._done = train, say, 0
        self._computed: list[float] = []  # seconds of the parts that were not read
        self._names: dict[Path, str] = {}

    def __call__(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """What `compute` returns (numbers, arrays or texts by name), computed now or in an earlier part of the study.

        Raises:
            InputError: the file of an earlier part is broken.
        """
        path = self._path(f"{name}.npz")
        start, found = time.perf_counter(), path.exists()
        if not found:
            values = {key: np.asarray(value) for key, value in compute().items()}
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                np.savez(file, **values)  # type: ignore[arg-type]
            os.replace(part, path)  # a cell that was stopped while it was written is computed again
        self._progress(name, start, found)
        try:
            with np.load(path) as stored:
                return {key: stored[key] for key in stored.files}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is broken; remove it, and the study computes it again.") from error

    def train(self, name: str, words: Sequence[str]) -> Trained:
        """One run of the training program with the overrides `words`."""
        assert self._train is not None, "this study declares trains = False"
        place = self._path(name)
        start, earlier = time.perf_counter(), _written(place / "summary.json")
        trained = self._train(words, place)
        self._progress(name, start, found=earlier is not None and _written(place / "summary.json") == earlier)
        return trained

    def _path(self, name: str) -> Path:
        path = self.folder / re.sub(r"[^\w.=+-]+", "_", name)
        other = self._names.setdefault(path, name)
        if other != name:
            raise InputError(f"The study's parts {other!r} and {name!r} would share {path.name}; rename one of them.")
        return path

    def _progress(self, name: str, start: float, found: bool) -> None:
        """One line; what is left is estimated by the mean of the parts so far."""
        seconds = time.perf_counter() - start
        self._done += 1
        if not found:
            self._computed.append(seconds)
        left, of = max(0, self.total - self._done), f"/{self.total}" if self.total else ""
        estimate = f", about {duration(left * fmean(self._computed))} left" if left and self._computed else ""
        self._say(f"[{self._done}{of}] {name} ({'found' if found else duration(seconds)}{estimate})")


def _written(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def duration(seconds: float) -> str:
    """In the largest unit of which there are at least two."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
