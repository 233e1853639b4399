"""The same run in several ways over several seeds: is a difference larger than the spread of the seeds?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from spectrain.errors import InputError
from spectrain.plots import race_figure
from spectrain.studies.cells import Cells, Trained
from spectrain.studies.findings import Findings
from spectrain.studies.settings import check_overrides


@dataclass
class OverSeeds:
    """Every way with every seed, by the configured run.

    `ways` maps a name to overrides, the first one being what the others are compared with. `metric` is a number of
    summary.json, null where a run did not come so far; `curve` is the column of history.csv that the figure shows.
    The headline is the median over the seeds of (second way - first way), each seed with itself.
    """

    ways: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    metric: str
    curve: str
    trains: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_overrides(self, "ways", "ways")
        if not self.seeds or len({*self.seeds}) < len(self.seeds):
            raise InputError(f"study.seeds={list(self.seeds)} must be a list of different seeds, such as [0, 1, 2].")

    def run(self, cells: Cells) -> Findings:
        """All runs, the ways in turn within each seed."""
        cells.total = len(self.ways) * len(self.seeds)
        runs: dict[tuple[str, int], Trained] = {}
        for seed in self.seeds:
            for way, words in self.ways.items():
                runs[way, seed] = cells.train(f"{way} seed {seed}", [*words, f"seed={seed}"])
        values = {way: np.array([self._value(runs[way, seed]) for seed in self.seeds]) for way in self.ways}
        first, second, *_ = values.values()
        pairs = (second - first)[np.isfinite(second - first)]
        difference = float(np.median(pairs)) if len(pairs) else None
        headline: dict[str, Any] = {"difference": difference, "spread": _spread(first)}
        table = []
        for way, found in values.items():
            known = found[np.isfinite(found)]
            key = way.replace(" ", "_")
            middle = float(np.median(known)) if len(known) else None
            headline |= {f"{key}_{self.metric}": middle, f"{key}_reached": len(known)}
            shown = ", ".join(f"{v:.5g}" if np.isfinite(v) else "not reached" for v in found)
            table.append((way, f"{self.metric} {shown}" + ("" if middle is None else f"; median {middle:.5g}")))
        if difference is not None:
            table.append(("difference", f"{difference:+.4g} in the median; the seeds differ by {_spread(first):.4g}"))
        return Findings(headline, {"over_seeds": (race_figure, self._curves(runs))}, table)

    def _value(self, run: Trained) -> float:
        if self.metric not in run.summary:
            numbers = ", ".join(k for k, v in run.summary.items() if isinstance(v, int | float))
            raise InputError(f"study.metric={self.metric} is not in summary.json; it has {numbers}.")
        value = run.summary[self.metric]
        return float("nan") if value is None else float(value)

    def _curves(self, runs: Mapping[tuple[str, int], Trained]) -> dict[str, Any]:
        names = ("method", "seed", "seconds", "step", "value")
        parts: dict[str, list[Any]] = {name: [] for name in names}
        for (way, seed), run in runs.items():
            if self.curve not in run.history:
                raise InputError(f"study.curve={self.curve} is not in history.csv; it has {', '.join(run.history)}.")
            n = len(run.history["step"])
            columns = [run.history[name] for name in ("cpu_seconds", "step", self.curve)]
            rows: list[Any] = [[way] * n, [seed] * n, *columns]
            for name, row in zip(names, rows, strict=True):
                parts[name].extend(row)
        return {**{k: np.array(v) for k, v in parts.items()}, "label": self.curve, "target": float("nan")}


def _spread(values: np.ndarray) -> float | None:
    """Largest minus smallest."""
    known = values[np.isfinite(values)]
    return float(np.ptp(known)) if len(known) else None
