"""The table of bars: its rows name what the races have, and a line says who won."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import DictConfig

from spectrain.cli.overrides import composed
from spectrain.cli.race_cells import Cell, Result
from spectrain.cli.standings import Metric, standings

SCRIPT = Path(__file__).parents[3] / "scripts" / "benchmarks" / "time_to_target.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("time_to_target", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = sys.modules["time_to_target"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_name_what_the_races_have(script: ModuleType) -> None:
    races = {name: composed([f"race={name}"], "compare").race for name in {r.race for r in script.ROWS.values()}}
    for name, row in script.ROWS.items():
        race = races[row.race]
        assert row.task in race.tasks and {*row.baselines, *row.ours} <= {*race.methods}, name
        assert not {*row.baselines} & {*row.ours}, name


def cell(method: str, *values: float) -> Result:
    rows = tuple({"step": i, "cpu_seconds": float(i + 1), "psnr": value} for i, value in enumerate(values))
    return Result(Cell("camera_64", method, (), 0, 0.01, 10), Path("folder"), rows)


@pytest.mark.parametrize(
    ("ours", "target", "says"),
    [
        ((30.0, 41.0), None, ["adam_S 2.0 s", "0.50", "MISSED"]),
        ((41.0, 42.0), None, ["adam_S 1.0 s", "0.25", "met"]),
        ((30.0, 39.0), None, ["not reached"]),
        ((30.0, 60.0), 50.0, ["none in 20 s", "< 0.10", "met"]),
        ((*[30.0] * 9, 60.0), 50.0, ["none in 20 s", "< 0.50", "open"]),  # baselines may need ten times the budget
    ],
)
def test_a_line_of_the_table(
    script: ModuleType, ours: tuple[float, ...], target: float | None, says: list[str]
) -> None:
    results = [cell("adam", 10, 20, 30, 40), cell("adam_S", *ours)]
    table = standings(results, {"adam"}, Metric("psnr", higher=True), target)
    line = script.verdict("relu_64", script.ROWS["relu_64"], table, 20.0)
    assert all(word in line for word in says), line
    assert math.isfinite(script.ROWS["relu_64"].bar)


def test_a_row_leaves_its_page_and_its_numbers(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours get 1.05 of the time; the target is the baselines' less .1."""
    budgets = []

    def race(cfg: DictConfig) -> list[Result]:
        budgets.append(cfg.budget)
        return [cell(str(cfg.methods[0]), 10, 40)]

    monkeypatch.setattr(script, "race", race)
    table = script.run_row("auto_siren", tmp_path, 10.0, [0], [1.0], ["own"])
    assert budgets == [10, 10.5] and [(s.method, s.target) for s in table] == [("soap", 39.9), ("soap_auto", 39.9)]
    page = (tmp_path / "auto_siren" / "index.html").read_text()
    assert "Race: auto_siren" in page and "10 or 10.5 CPU seconds" in page and "The target is 39.9" in page
    assert len(json.loads((tmp_path / "auto_siren" / "results.json").read_text())["cells"]) == 2


def test_a_shorter_schedule_is_one_more_trial(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both sides, in the same table: the target is the best of all baselines' final values."""

    def race(cfg: DictConfig) -> list[Result]:
        values = {20.0: (10, 20, 40), 10.0: (10, 39)}[cfg.budget]
        return [cell(str(cfg.methods[0]), *(v + 2 * str(cfg.methods[0]).endswith("_S") for v in values))]

    monkeypatch.setattr(script, "race", race)
    table = script.run_row("relu_64", tmp_path, 20.0, [0], [1.0], ["own"])
    assert [(s.method, s.baseline, s.seconds) for s in table] == [
        ("nesterov", True, 3.0),
        ("nesterov in 10 s", True, math.inf),
        ("adam_S", False, 3.0),
        ("adam_S in 10 s", False, 2.0),
    ]
    line = script.verdict("relu_64", script.ROWS["relu_64"], table, 20.0)
    assert "adam_S in 10 s 2.0 s" in line and "0.67" in line
    rows = json.loads((tmp_path / "relu_64" / "results.json").read_text())["cells"]
    assert [row["method"] for row in rows] == ["nesterov", "nesterov in 10 s", "adam_S", "adam_S in 10 s"]
