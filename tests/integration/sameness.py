"""What must be the same, to the bit, in a run that was stopped and resumed and in one that was not."""

import csv
from pathlib import Path
from typing import Any

import torch
from program import load

LAST = "checkpoints/last.ckpt"


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    """Equal to the bit, in nested containers."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}/{number}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other or (one != one and other != other), f"{where}: {one} != {other}"


def state(folder: Path, period: int = 4) -> dict[str, Any]:
    """What decides how a run goes on, from last.ckpt: all but clocks, paths and the configuration's text."""
    found = load(folder / LAST)
    callbacks = found["callbacks"]
    history = callbacks.get("RunHistory") or callbacks["PhysicsHistory"]
    # A stop is validated too, which an uninterrupted run has no row for.
    rows = [_without_clocks(row) for row in history["rows"] if row["step"] % period == 0]
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "preconditioner", "guard", "global_step")
    return {
        **{key: found.get(key) for key in kept},
        "rows": rows,
        "spectrum": _without_clocks(callbacks.get("SpectrumCallback", {})),
        # Python's own generator is left out: beartype, which checks shapes in tests only, draws from it.
        "random": {key: found["callbacks"]["RandomState"][key] for key in ("torch", "numpy")},
    }


def _without_clocks(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if "seconds" not in name}


def losses(folder: Path) -> list[tuple[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [(row["step"], row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without clocks."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if not name.startswith("time/")} for row in csv.DictReader(file)
        ]
