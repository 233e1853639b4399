"""The table of a race, on curves made by hand."""

import json
import math
from pathlib import Path

import pytest

from spectrain.cli.race_cells import Cell, Result
from spectrain.cli.standings import Metric, Standing, standings

PSNR = Metric("psnr", higher=True)
ERROR = Metric("l2_error", higher=False)


def result(method: str, seed: int, rate: float, *values: float, metric: Metric = PSNR, pace: float = 1.0) -> Result:
    """A cell that is evaluated every `pace` seconds."""
    cell = Cell("task", method, ("optimizer=soap",), seed, rate, steps=len(values))
    rows = tuple(
        {"step": float(i), "cpu_seconds": pace * (i + 1), metric.name: value} for i, value in enumerate(values)
    )
    return Result(cell, Path("folder"), curve=rows, error="" if rows else "it diverged")


def by_method(results: list[Result], metric: Metric = PSNR) -> dict[str, Standing]:
    return {s.method: s for s in standings(results, {"soap", "adam"}, metric)}


def test_the_best_baseline_sets_the_target_and_the_fastest_the_time() -> None:
    table = by_method(
        [
            result("soap", 0, 0.1, 10, 20, 30, 40),
            result("adam", 0, 0.1, 10, 15, 20, 25),
            result("soap_S", 0, 0.1, 30, 41, 45, 50),
        ]
    )
    assert {s.target for s in table.values()} == {40}
    assert (table["soap"].seconds, table["soap_S"].seconds, table["adam"].seconds) == (4, 2, math.inf)
    assert (table["soap"].ratio, table["soap_S"].ratio) == (1, 0.5)
    assert [s.baseline for s in table.values()] == [True, True, False]


def test_a_target_may_be_given_or_set_a_little_easier() -> None:
    results = [result("soap", 0, 0.1, 10, 20, 30), result("soap_S", 0, 0.1, 19, 29.95, 30)]
    given = standings(results, {"soap"}, PSNR, target=20)
    assert [(s.target, s.seconds) for s in given] == [(20, 2), (20, 2)]
    easier = standings(results, {"soap"}, PSNR, slack=0.1)
    assert [(s.target, s.seconds) for s in easier] == [(29.9, 3), (29.9, 2)]
    errors = [result("soap", 0, 0.1, 0.5, 0.1, metric=ERROR)]
    assert standings(errors, {"soap"}, ERROR, slack=0.4)[0].seconds == 1


def test_ours_cannot_set_the_target() -> None:
    table = by_method([result("soap", 0, 0.1, 20), result("soap_S", 0, 0.1, 99)])
    assert table["soap_S"].target == 20


def test_the_rate_is_the_one_with_the_best_median_not_the_best_seed() -> None:
    lucky = [result("soap", seed, 0.1, value) for seed, value in enumerate((99, 10, 11))]
    steady = [result("soap", seed, 0.2, value) for seed, value in enumerate((30, 31, 32))]
    table = by_method(lucky + steady)
    assert (table["soap"].rate, table["soap"].final, table["soap"].finals) == (0.2, 31, (30, 31, 32))


def test_the_time_is_that_of_the_fastest_rate_of_each_seed() -> None:
    results = [result("soap", 0, 0.1, 10, 20), result("soap_S", 0, 0.1, 10, 10, 20), result("soap_S", 0, 0.2, 20, 15)]
    assert by_method(results)["soap_S"].seconds == 1


def test_smaller_is_better_where_it_is() -> None:
    results = [
        result("soap", 0, 0.1, 0.5, 0.1, metric=ERROR),
        result("soap", 0, 0.2, 0.5, 0.3, metric=ERROR),
        result("soap_S", 0, 0.1, 0.01, 0.001, metric=ERROR),
    ]
    table = by_method(results, ERROR)
    assert (table["soap"].rate, table["soap"].target, table["soap_S"].ratio) == (0.1, 0.1, 0.5)


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_the_best_baseline_reaches_its_own_target(seeds: int) -> None:
    """Otherwise there would be no ratio at all."""
    table = by_method([result("soap", seed, 0.1, 10, 20 + seed) for seed in range(seeds)])
    assert table["soap"].ratio == 1


def test_a_failed_cell_counts_as_the_worst_and_is_counted() -> None:
    table = by_method([result("soap", 0, 0.1, 20), result("soap", 0, 0.2), result("soap_S", 0, 0.1)])
    assert (table["soap"].rate, table["soap"].failed) == (0.1, 1)
    assert (table["soap_S"].final, table["soap_S"].seconds) == (-math.inf, math.inf)


def test_a_row_is_valid_json() -> None:
    rows = [s.row() for s in by_method([result("soap", 0, 0.1, 20), result("soap_S", 0, 0.1)]).values()]
    assert json.loads(json.dumps(rows, allow_nan=False))[1]["seconds"] is None
