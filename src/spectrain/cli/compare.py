"""``spectrain-compare``: a race of methods over tasks, in equal CPU time, with equal trials, as one page."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spectrain.cli import build
from spectrain.cli.config_dir import config_dir
from spectrain.cli.errors import run_guarded
from spectrain.cli.launch import launch
from spectrain.cli.nearest import nearest
from spectrain.cli.overrides import composed
from spectrain.cli.race_cells import Cell, Result, run_cell
from spectrain.cli.race_page import write_page
from spectrain.cli.standings import Metric, Standing, standings
from spectrain.cli.validation import validate
from spectrain.errors import InputError


@dataclass(frozen=True)
class Contest:
    """A task and a method: what they are told, the method's own learning rate, and whether it is a baseline."""

    task: str
    method: str
    words: tuple[str, ...]
    rate: float
    baseline: bool


def compare(cfg: DictConfig) -> list[Standing]:
    """Run every cell that is not finished, interleaved, and write results.json, results.csv and index.html.

    Every method gets the same CPU seconds, the same seeds and the same number of learning rates. A cell's schedule is
    stretched to the number of steps that fill the budget, by the method's own cost per step.

    Raises:
        InputError: anything in the configuration cannot be used; said before anything is trained.
    """
    validate(cfg)
    metric = Metric(cfg.race.metric, _better(cfg) == "higher")
    contests = [_contest(cfg, task, method) for task in _chosen(cfg, "tasks") for method in _chosen(cfg, "methods")]
    place = Path(cfg.output_dir or f"runs/race-{cfg.race.name}")
    place.mkdir(parents=True, exist_ok=True)
    results = _race(cfg, contests, place)
    table = standings(results, {c.method for c in contests if c.baseline}, metric)
    _write_results(place, results, table, metric)
    page = write_page(place, OmegaConf.to_container(cfg, resolve=True), results, table, metric)
    _print_table(cfg, table)
    print(f"page: {page}")
    return table


def _better(cfg: DictConfig) -> str:
    if cfg.race.better not in ("higher", "lower"):
        raise InputError(f"race.better={cfg.race.better} cannot be used; it must be higher or lower.")
    return str(cfg.race.better)


def _chosen(cfg: DictConfig, kind: str) -> list[str]:
    """Names of the tasks or methods that take part."""
    known, wanted = [str(name) for name in cfg.race[kind]], cfg[kind]
    for name in wanted or ():
        if name not in known:
            near = nearest(str(name), known)
            hint = f" Did you mean {near}?" if near else ""
            raise InputError(f"{kind}: there is no {name!r} in this race; it has {', '.join(known)}.{hint}")
    return known if wanted is None else [str(name) for name in wanted]


def _contest(cfg: DictConfig, task: str, method: str) -> Contest:
    """Compose what a cell will be told, so that a mistake in it is said before anything runs."""
    words = (*cfg.race.tasks[task], *cfg.race.methods[method])
    settings = composed(list(words))
    validate(settings)
    if not isinstance(settings.optimizer.get("lr"), int | float):
        raise InputError(
            f"race.methods.{method}: its optimizer.lr is {settings.optimizer.get('lr')}; a race multiplies it by "
            "rates, so it must be a number."
        )
    return Contest(task, method, words, float(settings.optimizer.lr), not build.is_on(settings, "preconditioner"))


def _race(cfg: DictConfig, contests: list[Contest], place: Path) -> list[Result]:
    """Every cell once: seeds outermost and methods innermost, so that a drift of the machine meets all alike."""
    console = Console(highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    total = len(contests) * (2 + len(cfg.seeds) * len(cfg.rates))
    results = []
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("race", total=total)

        def run(cell: Cell) -> Result:
            progress.update(bar, description=f"{cell.task} {cell.method} seed {cell.seed} lr {cell.rate:g}")
            result = run_cell(cell, place)
            progress.advance(bar)
            if not console.is_terminal:
                print(f"[{int(progress.tasks[0].completed)}/{total}] {_line(cfg, result)}", flush=True)
            return result

        steps = {contest: _steps(cfg, contest, run) for contest in contests}
        for cell in _cells(cfg, steps):
            results.append(run(cell))
    return results


def _cells(cfg: DictConfig, steps: Mapping[Contest, int]) -> Iterator[Cell]:
    for seed in cfg.seeds:
        for multiple in cfg.rates:
            for contest, number in steps.items():
                rate = contest.rate * multiple
                figures = seed == cfg.seeds[0]
                yield Cell(contest.task, contest.method, contest.words, seed, rate, number, figures)


def _steps(cfg: DictConfig, contest: Contest, run: Callable[[Cell], Result]) -> int:
    """How many steps fill the budget: seconds = start + cost * steps, from two short runs."""
    few: int = cfg.calibration_steps
    short = Cell(contest.task, contest.method, contest.words, cfg.seeds[0], contest.rate, few)
    first, second = run(short), run(replace(short, steps=2 * few))
    failed = next((r for r in (first, second) if not r.curve), None)
    if failed is not None:
        raise InputError(f"{contest.method} on {contest.task} cannot be run: {failed.error}")
    cost = max((second.cpu_seconds - first.cpu_seconds) / few, 0.2 * second.cpu_seconds / (2 * few))
    start = max(0.0, first.cpu_seconds - cost * few)
    return max(1, round((float(cfg.budget) - start) / cost))


def _line(cfg: DictConfig, result: Result) -> str:
    cell = result.cell
    what = f"{cell.task} {cell.method} seed {cell.seed} lr {cell.rate:g} {cell.steps} steps"
    if not result.curve:
        return f"{what}: failed, {result.error}"
    value = result.curve[-1].get(cfg.race.metric, float("nan"))
    return f"{what}: {value:.4g} {cfg.race.unit} in {result.cpu_seconds:.1f} CPU s"


def _write_results(place: Path, results: list[Result], table: list[Standing], metric: Metric) -> None:
    """results.json: the table and every cell with its command; results.csv: the cells' curves."""
    cells = [
        {
            **{name: getattr(r.cell, name) for name in ("task", "method", "seed", "rate", "steps")},
            "command": r.cell.command(),
            "folder": str(r.folder.relative_to(place)),
            "error": r.error,
            "final": metric.final(r) if r.curve else None,
        }
        for r in results
    ]
    rows = [standing.row() for standing in table]
    (place / "results.json").write_text(json.dumps({"standings": rows, "cells": cells}, indent=2) + "\n")
    columns = sorted({name for r in results for row in r.curve for name in row})
    with (place / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "method", "seed", "rate", *columns])
        for r in results:
            for row in r.curve:
                writer.writerow([r.cell.task, r.cell.method, r.cell.seed, r.cell.rate, *(row.get(c) for c in columns)])


def _print_table(cfg: DictConfig, table: list[Standing]) -> None:
    print(
        f"\n{'task':<16} {'method':<12} {cfg.race.metric:>10} {'rate':>8} {'CPU s':>7} {'to target':>10} {'ratio':>6}"
    )
    for s in table:
        print(
            f"{s.task:<16} {s.method:<12} {s.final:>10.4g} {s.rate:>8.3g} {s.cpu_seconds:>7.1f} {s.seconds:>10.1f} "
            f"{s.ratio:>6.2f}" + ("  baseline" if s.baseline else "")
        )
    print("to target: CPU seconds to the best baseline's final value; ratio: those over the fastest baseline's.")


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="compare")  # type: ignore[untyped-decorator]
def _job(cfg: DictConfig) -> None:
    code = run_guarded(lambda: compare(cfg), debug=cfg.show_traceback is True)
    if code:
        sys.exit(code)


def main() -> None:
    """Check the command line, then let Hydra run it."""
    launch(_job, "compare")


if __name__ == "__main__":
    main()
