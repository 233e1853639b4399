"""From the cells of a race to its table: the best trial of each method, its final value, its time to a target."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median, median_high, median_low
from typing import Any

from spectrain.cli.race_cells import Result


@dataclass(frozen=True)
class Metric:
    """The number that is raced for: a column of history.csv."""

    name: str
    higher: bool

    def final(self, result: Result) -> float:
        """At the end of a cell; the worst there is for a cell that failed."""
        worst = -math.inf if self.higher else math.inf
        value = result.curve[-1].get(self.name, math.nan) if result.curve else math.nan
        return worst if math.isnan(value) else value

    def best(self, values: Sequence[float]) -> float:
        """The best of several values."""
        return max(values) if self.higher else min(values)

    def middle(self, values: Sequence[float]) -> float:
        """The median; of an even number the worse of the two in the middle, so that half of the seeds reach it."""
        return (median_low if self.higher else median_high)(values)

    def reached(self, value: float, target: float) -> bool:
        """Whether a value is as good as the target."""
        return value >= target if self.higher else value <= target


@dataclass(frozen=True)
class Standing:
    """A method on a task.

    `rate`, `batch`: of the trials, the best one. `finals`: there, one value per seed, and their
    median, `final`. `seconds`: CPU seconds to the target, the fastest trial of each seed, median over the seeds; inf
    where most never reach it. `ratio`: those over the fastest baseline's.
    """

    task: str
    method: str
    baseline: bool
    rate: float
    batch: str
    finals: tuple[float, ...]
    final: float
    steps: int
    cpu_seconds: float
    target: float
    seconds: float
    ratio: float
    failed: int

    @property
    def trial(self) -> tuple[float, str]:
        """As of a cell."""
        return self.rate, self.batch

    def row(self) -> dict[str, Any]:
        """Plain values for a JSON file, which knows no infinity."""
        values = asdict(self) | {"finals": [_finite(value) for value in self.finals]}
        return {name: _finite(value) if isinstance(value, float) else value for name, value in values.items()}


def standings(
    results: Sequence[Result], baselines: set[str], metric: Metric, target: float | None = None, slack: float = 0.0
) -> list[Standing]:
    """One row for every task and method, in the order of the results.

    Without a `target` that of a task is set by its best baseline: the median over seeds of its final value at its best
    trial, or by `slack` easier, where two that run alike are told from each other by chance otherwise.
    """
    given = target
    table = []
    for task in dict.fromkeys(result.cell.task for result in results):
        of_task = [result for result in results if result.cell.task == task]
        methods = list(dict.fromkeys(result.cell.method for result in of_task))
        cells = {method: [r for r in of_task if r.cell.method == method] for method in methods}
        chosen = {method: _best_trial(cells[method], metric) for method in methods}
        finals = {method: [metric.final(r) for r in chosen[method]] for method in methods}
        bars = [metric.middle(finals[method]) for method in methods if method in baselines]
        set_by = metric.best(bars) + (-slack if metric.higher else slack) if bars else math.nan
        target = set_by if given is None else given
        seconds = {method: _seconds_to(target, cells[method], metric) for method in methods}
        fastest = min((seconds[method] for method in methods if method in baselines), default=math.nan)
        for method in methods:
            best = chosen[method]
            spent = [r.cpu_seconds for r in best if r.curve]
            table.append(
                Standing(
                    task=task,
                    method=method,
                    baseline=method in baselines,
                    rate=best[0].cell.rate,
                    batch=best[0].cell.batch,
                    finals=tuple(finals[method]),
                    final=metric.middle(finals[method]),
                    steps=best[0].cell.steps,
                    cpu_seconds=median(spent) if spent else math.nan,
                    target=target,
                    seconds=seconds[method],
                    ratio=seconds[method] / fastest if math.isfinite(fastest) else math.nan,
                    failed=sum(not r.curve for r in cells[method]),
                )
            )
    return table


def best_trials(results: Sequence[Result], metric: Metric) -> dict[tuple[str, str], tuple[float, str]]:
    """Of every task and method."""
    pairs = dict.fromkeys((r.cell.task, r.cell.method) for r in results)
    cells = {pair: [r for r in results if (r.cell.task, r.cell.method) == pair] for pair in pairs}
    return {pair: _best_trial(mine, metric)[0].cell.trial for pair, mine in cells.items()}


def _best_trial(results: Sequence[Result], metric: Metric) -> list[Result]:
    """The cells of the trial whose final value has the best median over the seeds, of those tried with all of them."""
    trials = dict.fromkeys(result.cell.trial for result in results)
    groups = [[r for r in results if r.cell.trial == trial] for trial in trials]
    groups = [group for group in groups if len(group) == max(map(len, groups))]
    scores = [metric.middle([metric.final(r) for r in group]) for group in groups]
    return groups[scores.index(metric.best(scores))]


def _seconds_to(target: float, results: Sequence[Result], metric: Metric) -> float:
    seeds = dict.fromkeys(result.cell.seed for result in results)
    return median_low(
        min((_crossing(r, target, metric) for r in results if r.cell.seed == seed), default=math.inf) for seed in seeds
    )


def _crossing(result: Result, target: float, metric: Metric) -> float:
    """CPU seconds at the first evaluation that is as good as the target."""
    times = (row["cpu_seconds"] for row in result.curve if metric.reached(row.get(metric.name, math.nan), target))
    return next(times, math.inf)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
