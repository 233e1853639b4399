"""What run folders hold, read for a report: configuration, summary, curves, modes. Nothing in them is executed."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spectrain.errors import InputError

TIMES = ("step", "seconds", "cpu_seconds")
# Keys that name the run and differ between any two, and those that repeat others.
OWN_KEYS = ("paths.", "ckpt_path", "logger.", "callbacks.", "schedule.max_steps", "preconditioner.spectral_map.")


@dataclass(frozen=True)
class Run:
    """One run folder; `summary` is empty and `curve` shorter where the run has not come to its end."""

    name: str
    folder: Path
    config: dict[str, Any]  # {"model.width": 512, ...}
    summary: dict[str, Any]
    curve: list[dict[str, float]]  # a row per evaluation: TIMES and metrics
    modes: dict[str, list[float]]

    def last(self, name: str) -> float:
        """The metric's value at the end of the run."""
        return next((row[name] for row in reversed(self.curve) if name in row), math.nan)


def read_runs(folders: list[str]) -> list[Run]:
    """The runs, with names that tell them apart.

    Raises:
        InputError: a folder is not that of a run, or is given twice.
    """
    paths = [Path(folder) for folder in folders]
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("A run is given twice; name each folder once.")
    short = [path.resolve().name for path in paths]
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    return [read_run(path, name) for path, name in zip(paths, names, strict=True)]


def read_run(folder: Path, name: str) -> Run:
    """One of them."""
    config = folder / "config.yaml"
    if not config.is_file():
        raise InputError(f"{folder} is not the folder of a run: it has no config.yaml; give one such as runs/NAME.")
    try:
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
        summary = folder / "summary.json"
        numbers = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else {}
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{folder} cannot be read: {str(error).splitlines()[0]}.") from error
    return Run(name, folder, dict(flat(settings or {})), numbers, read_curve(folder), read_modes(folder))


def read_curve(folder: Path) -> list[dict[str, float]]:
    """history.csv, or what metrics.csv has of it while a run goes on or after it was killed."""
    if (folder / "history.csv").exists():
        return [numbers(row) for row in _rows(folder / "history.csv")]
    rows = [numbers(row) for row in _rows(folder / "metrics.csv")]
    renamed = [{_short(name): value for name, value in row.items()} for row in rows]
    kept = [{name: value for name, value in row.items() if "/" not in name} for row in renamed]
    return [row for row in kept if "cpu_seconds" in row and "step" in row and len(row) > len(TIMES)]


def _short(name: str) -> str:
    """val/psnr -> psnr, time/seconds -> seconds: the names of history.csv."""
    group, _, rest = name.partition("/")
    return rest if group == "val" or (group == "time" and rest in TIMES) else name


def read_modes(folder: Path) -> dict[str, list[float]]:
    """modes.csv by columns."""
    rows = _rows(folder / "modes.csv")
    return {name: [_number(row[name]) for row in rows] for name in (rows[0] if rows else {})}


def numbers(row: dict[str, str]) -> dict[str, float]:
    """What of a row is a finite number."""
    values = {name: _number(value) for name, value in row.items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def flat(node: Any, key: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value) of nested dictionaries."""
    if not isinstance(node, dict):
        return [(key, node)]
    return [pair for name, child in node.items() for pair in flat(child, f"{key}.{name}".lstrip("."))]


def differences(runs: list[Run]) -> list[tuple[str, list[Any]]]:
    """(key, value in each run) of the settings that are not the same in all; a key that a run lacks is "–"."""
    keys = dict.fromkeys(key for run in runs for key in run.config if not key.startswith(OWN_KEYS))
    found = [(key, [run.config.get(key, "–") for run in runs]) for key in keys]
    return [(key, values) for key, values in found if any(value != values[0] for value in values)]
