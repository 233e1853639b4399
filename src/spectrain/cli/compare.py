"""``spectrain-compare``: a race of methods over tasks, in equal CPU time, with equal trials, as one page."""

import csv
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spectrain.cli.config_dir import config_dir
from spectrain.cli.errors import run_guarded
from spectrain.cli.launch import launch
from spectrain.cli.nearest import nearest
from spectrain.cli.overrides import composed
from spectrain.cli.race_cells import Cell, Result, run_cell
from spectrain.cli.race_page import write_page
from spectrain.cli.standings import Metric, Standing, best_trials, standings
from spectrain.cli.validation import validate
from spectrain.errors import InputError
from spectrain.lightning.outputs import write_json

SHORTEST = 4  # steps of the first short run
OFF = 0.05  # of the budget: a first trial whose time differs by more is made anew


@dataclass(frozen=True)
class Contest:
    """A task, a method and a batch size: what they are told, and the number that trials multiply, with its default."""

    task: str
    method: str
    words: tuple[str, ...]
    knob: str
    value: float
    batch: str
    evaluations: int

    def cell(self, seed: int, rate: float, steps: int, *, figures: bool = False) -> Cell:
        """One training of it."""
        return Cell(
            self.task, self.method, self.words, seed, rate, steps, figures, self.knob, self.batch, self.evaluations
        )


def compare(cfg: DictConfig) -> list[Standing]:
    """Run the race, and write results.json, results.csv and index.html.

    Raises:
        InputError: anything in the configuration cannot be used; said before anything is trained.
    """
    validate(cfg)
    baselines = _baselines(cfg)
    results = race(cfg)
    table = standings(results, baselines, metric(cfg), cfg.race.target)
    page = publish(cfg, _place(cfg), results, table)
    _print_table(cfg, table)
    print(f"page: {page}")
    return table


def publish(cfg: DictConfig, place: Path, results: list[Result], table: list[Standing]) -> Path:
    """Write table and cells to results.json, the cells' curves to results.csv, and all to index.html; its path."""
    place.mkdir(parents=True, exist_ok=True)
    _write_results(place, results, table, metric(cfg))
    return write_page(place, OmegaConf.to_container(cfg, resolve=True), results, table, metric(cfg))


def race(cfg: DictConfig) -> list[Result]:
    """Every cell of every task, method, seed and trial (a rate and a batch size); finished ones are read.

    Every method gets the same CPU seconds, the same seeds and, on the first seed, the same number of trials. A cell's
    schedule is stretched to the number of steps that fill the budget, by the method's own cost per step. Several
    budgets are tasks of their own. A method that cannot be run at all has one cell, failed.

    Raises:
        InputError: anything in the configuration cannot be used; said before anything is trained.
    """
    validate(cfg)
    everything = product(_chosen(cfg, "tasks"), _chosen(cfg, "methods"), map(str, cfg.batch_sizes))
    contests = [_contest(cfg, task, method, batch) for task, method, batch in everything]
    place = _place(cfg)
    place.mkdir(parents=True, exist_ok=True)
    return _race(cfg, contests, place)


def _place(cfg: DictConfig) -> Path:
    return Path(cfg.output_dir or f"runs/race-{cfg.race.name}")


def _baselines(cfg: DictConfig) -> set[str]:
    """Those that set the target; the others are ours."""
    known, named = {str(name) for name in cfg.race.methods}, {str(name) for name in cfg.race.baselines}
    if not named or not named <= known:
        raise InputError(f"race.baselines={sorted(named)} must name some of the race's methods: {', '.join(known)}.")
    return named


def _chosen(cfg: DictConfig, kind: str) -> list[str]:
    """Names of the tasks or methods that take part."""
    known, wanted = [str(name) for name in cfg.race[kind]], cfg[kind]
    for name in wanted or ():
        if name not in known:
            near = nearest(str(name), known)
            hint = f" Did you mean {near}?" if near else ""
            raise InputError(f"{kind}: there is no {name!r} in this race; it has {', '.join(known)}.{hint}")
    return known if wanted is None else [str(name) for name in wanted]


def _contest(cfg: DictConfig, task: str, method: str, batch: str = "own") -> Contest:
    """Compose what a cell will be told, so that a mistake in it is said before anything runs.

    Trials multiply the learning rate, or the damping where there is no rate.
    """
    if batch == "all" and cfg.race.batch_key != "data.batch_size":
        raise InputError(
            "batch_sizes: an equation's points are drawn, and there is no all of them; give own or numbers."
        )
    size = [] if batch == "own" else [f"{cfg.race.batch_key}={'null' if batch == 'all' else batch}"]
    words = (*cfg.race.common, *cfg.race.tasks[task], *cfg.race.methods[method], *size)
    settings = composed(list(words))
    validate(settings)
    knob = "optimizer.lr" if "lr" in settings.optimizer else "optimizer.mu"
    value = OmegaConf.select(settings, knob)
    if not isinstance(value, int | float):
        raise InputError(
            f"race.methods.{method}: its {knob} is {value}; a race multiplies it by rates, so it must be a number."
        )
    return Contest(task, method, words, knob, float(value), batch, cfg.evaluations)


def _race(cfg: DictConfig, contests: list[Contest], place: Path) -> list[Result]:
    """Every cell once: seeds outermost and methods innermost, so that a drift of the machine meets all alike.

    All trials are made with the first seed; with the others, which are held out, each method has its best one.
    """
    console = Console(highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    budgets = len(_budgets(cfg))
    held_out = len({(contest.task, contest.method) for contest in contests}) * (len(cfg.seeds) - 1)
    total = len(contests) * (1 + budgets * len(cfg.rates)) + budgets * held_out
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("race", total=total)

        def run(cell: Cell, more: int = 0) -> Result:
            """`more`: of the cells that were not foreseen."""
            description = f"{cell.task} {cell.method} seed {cell.seed} rate {cell.rate:g} batch {cell.batch}"
            progress.update(bar, description=description, total=(progress.tasks[0].total or 0) + more)
            result = run_cell(cell, place)
            progress.advance(bar)
            if not console.is_terminal:
                print(f"[{progress.tasks[0].completed:g}/{progress.tasks[0].total:g}] {_line(cfg, result)}", flush=True)
            return result

        short = {contest: _short_run(cfg, contest, run) for contest in contests}
        results, steps = _trials(cfg, short, run)
        best = best_trials(results, metric(cfg))
        for seed, multiple in product(cfg.seeds[1:], cfg.rates):
            cells = [_cell(cfg, contest, seed, multiple, budget, n) for (budget, contest), n in steps.items()]
            results += [run(cell) for cell in cells if cell.trial == best[cell.task, cell.method]]
    return results


def _trials(
    cfg: DictConfig, short: Mapping[Contest, Result], run: Callable[..., Result]
) -> tuple[list[Result], dict[tuple[float, Contest], int]]:
    """All trials of the first seed, and the steps that fill each budget.

    These are told by the short run, and by the first trial, which is made anew where it ends a twentieth off its budget
    (twice at most).
    """
    results, steps = [], {}
    for budget, (contest, result) in product(_budgets(cfg), short.items()):
        if result.curve:
            steps[budget, contest] = result.steps_to_fill(budget)
        else:
            results.append(replace(result, cell=replace(result.cell, task=_task(cfg, contest, budget))))
    for multiple, (budget, contest) in product(cfg.rates, list(steps)):
        result = run(_cell(cfg, contest, cfg.seeds[0], multiple, budget, steps[budget, contest]))
        for _ in range(2 if multiple == cfg.rates[0] else 0):
            if abs(result.cpu_seconds - budget) > OFF * budget:
                anew = result.steps_to_fill(budget)
                if anew != result.cell.steps:
                    result = run(replace(result.cell, steps=anew), 1)
        steps[budget, contest] = result.cell.steps
        results.append(result)
    return results, steps


def _cell(cfg: DictConfig, contest: Contest, seed: int, multiple: float, budget: float, steps: int) -> Cell:
    cell = contest.cell(seed, contest.value * multiple, steps, figures=seed == cfg.seeds[0])
    return replace(cell, task=_task(cfg, contest, budget))


def _budgets(cfg: DictConfig) -> list[float]:
    return [float(b) for b in cfg.budget] if OmegaConf.is_list(cfg.budget) else [float(cfg.budget)]


def metric(cfg: DictConfig) -> Metric:
    """What is raced for."""
    return Metric(cfg.race.metric, cfg.race.better == "higher")


def _task(cfg: DictConfig, contest: Contest, budget: float) -> str:
    """Several budgets are tasks of their own."""
    return contest.task if len(_budgets(cfg)) == 1 else f"{contest.task}_{budget:g}s"


def _short_run(cfg: DictConfig, contest: Contest, run: Callable[..., Result]) -> Result:
    """One from whose CPU seconds the cost of a step is read; at the lowest rate, the one that diverges last.

    A few steps say whether the budget holds twice `calibration_steps` of them; if it does, those are made.
    """
    many = 2 * cfg.calibration_steps
    shortest = run(contest.cell(cfg.seeds[0], contest.value * min(cfg.rates), SHORTEST))
    if not shortest.curve or shortest.steps_to_fill(min(_budgets(cfg))) < many:
        return shortest
    return run(replace(shortest.cell, steps=many), 1)


def _line(cfg: DictConfig, result: Result) -> str:
    cell = result.cell
    knob = cell.knob.rpartition(".")[2]
    what = f"{cell.task} {cell.method} seed {cell.seed} {knob} {cell.rate:g} batch {cell.batch} {cell.steps} steps"
    if not result.curve:
        return f"{what}: failed, {result.error}"
    value = result.curve[-1].get(cfg.race.metric, float("nan"))
    return f"{what}: {value:.4g} {cfg.race.unit} in {result.cpu_seconds:.1f} CPU s"


def _write_results(place: Path, results: list[Result], table: list[Standing], raced: Metric) -> None:
    """results.json: the table and every cell with its command; results.csv: the cells' curves."""
    cells = [
        {
            **{name: getattr(r.cell, name) for name in ("task", "method", "seed", "rate", "batch", "steps")},
            "command": r.cell.command(),
            "folder": os.path.relpath(r.folder, place),
            "error": r.error,
            "final": raced.final(r) if r.curve else None,
        }
        for r in results
    ]
    rows = [standing.row() for standing in table]
    write_json(place / "results.json", {"standings": rows, "cells": cells})
    columns = sorted({name for r in results for row in r.curve for name in row})
    with (place / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "method", "seed", "rate", "batch", *columns])
        for r in results:
            for row in r.curve:
                cell = (r.cell.task, r.cell.method, r.cell.seed, r.cell.rate, r.cell.batch)
                writer.writerow([*cell, *(row.get(c) for c in columns)])


def _print_table(cfg: DictConfig, table: list[Standing]) -> None:
    print(
        f"\n{'task':<16} {'method':<12} {cfg.race.metric:>10} {'rate':>8} {'batch':>6} {'CPU s':>7} {'to target':>10} "
        f"{'ratio':>6}"
    )
    for s in table:
        print(
            f"{s.task:<16} {s.method:<12} {s.final:>10.4g} {s.rate:>8.3g} {s.batch:>6} {s.cpu_seconds:>7.1f} "
            f"{s.seconds:>10.1f} {s.ratio:>6.2f}" + ("  baseline" if s.baseline else "")
        )
    target = cfg.race.target
    what = "the best baseline's final value" if target is None else f"{target:g} {cfg.race.unit}".strip()
    print(f"to target: CPU seconds to {what}; ratio: those over the fastest baseline's.")


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
