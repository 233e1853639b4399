"""The bars of "time to target": the fastest of ours against the fastest baseline, in equal CPU time.

    python scripts/benchmarks/time_to_target.py                              # every row; hours on one core
    python scripts/benchmarks/time_to_target.py relu_64 poisson_1e-3
    python scripts/benchmarks/time_to_target.py --quick siren finer          # a fifth of the time, one seed

Each row is a part of a race in conf/race, run by the same machinery with the same rules: a process and one thread for
every cell, schedules stretched to equal CPU seconds, everything charged but evaluations, trials on the first seed, the
others held out. Time is the median over the seeds. Finished cells are kept under --output and not run again; rows of
one race share theirs. Each row leaves index.html (opens offline), results.json and results.csv in a folder of its name.
A row without a target of its own has the best baseline's final value for one, less its slack: two methods that do the
same reach each other's final value by chance. Where the bar allows ours more time than the baselines, ours are given
it: schedules end with the budget, so that none is there earlier than at its end. In some rows a schedule of half the
length is one more trial of everybody ("METHOD in 10 s"): whoever needs less time for the target may plan for less.
"""

import argparse
import math
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from spectrain.cli.compare import metric, publish, race
from spectrain.cli.overrides import composed
from spectrain.cli.race_cells import Result
from spectrain.cli.standings import Standing, standings


@dataclass(frozen=True)
class Row:
    """A part of a race, and the bar for (time of ours) / (time of the best baseline)."""

    race: str
    task: str
    baselines: tuple[str, ...]
    ours: tuple[str, ...]
    bar: float
    budget: float  # CPU seconds
    target: float | None = None
    slack: float = 0.0
    shares: tuple[float, ...] = (1.0,)  # of the budget: schedules of each length, for all


USUAL = ("nesterov", "adam", "muon", "soap", "shampoo", "lbfgs", "esgd", "iga", "soap_readout")
OURS = ("adam_S", "muon_S", "soap_sample", "soap_grid", "soap_grid_readout")
WIDE = ("nesterov", "adam", "muon", "soap_lattice", "shampoo", "lbfgs", "esgd", "iga")
WIDE_OURS = ("adam_S", "muon_S", "soap_lattice_S")
PERIODIC = ("adam", "soap", "esgd", "adam_scaled", "soap_scaled")
PERIODIC_AUTO = ("adam_auto", "soap_auto", "adam_scaled_auto", "soap_scaled_auto")
PERIODIC_GAUSS_NEWTON = ("gauss_newton", "gauss_newton_scaled")
FOURIER = ("adam", "muon", "soap", "lbfgs")
FOURIER_OURS = ("adam_S", "soap_S", "soap_grid", "lbfgs_S", "gauss_newton")
EQUATION = ("adam", "soap", "lbfgs")
ROWS = {
    "relu_64": Row("photographs", "camera_64", USUAL, OURS, 0.35, 20, shares=(1.0, 0.5)),
    "relu_64_coins": Row("photographs", "coins_64", USUAL, OURS, 0.35, 20, shares=(1.0, 0.5)),  # held out
    "relu_128": Row("photographs", "camera_128", WIDE, WIDE_OURS, 0.4, 75),
    "relu_128_coins": Row("photographs", "coins_128", WIDE, WIDE_OURS, 0.4, 75),  # held out
    "fourier": Row("fourier", "camera_64", FOURIER, FOURIER_OURS, 1.0, 15, target=40),
    "siren": Row("periodic_networks", "siren_camera", PERIODIC, PERIODIC_AUTO, 1.05, 10, slack=0.1),
    "siren_coins": Row("periodic_networks", "siren_coins", PERIODIC, PERIODIC_AUTO, 1.05, 10, slack=0.1),  # held out
    "finer": Row("periodic_networks", "finer_camera", PERIODIC, PERIODIC_AUTO, 1.05, 10, slack=0.1),
    "finer_coins": Row("periodic_networks", "finer_coins", PERIODIC, PERIODIC_AUTO, 1.05, 10, slack=0.1),  # held out
    "siren_gauss_newton": Row("periodic_networks", "siren_camera", PERIODIC, PERIODIC_GAUSS_NEWTON, 1.0, 10),
    "siren_gauss_newton_coins": Row("periodic_networks", "siren_coins", PERIODIC, PERIODIC_GAUSS_NEWTON, 1.0, 10),
    "finer_gauss_newton": Row("periodic_networks", "finer_camera", PERIODIC, PERIODIC_GAUSS_NEWTON, 1.0, 10),
    "auto_relu": Row("photographs", "camera_64", ("soap", "soap_sample"), ("soap_auto",), 1.05, 20, slack=0.1),
    "auto_fourier": Row("fourier", "camera_64", ("soap", "soap_sample"), ("soap_auto",), 1.05, 15, slack=0.1),
    "auto_siren": Row("periodic_networks", "siren_camera", ("soap", "soap_S"), ("soap_auto",), 1.05, 10, slack=0.1),
    "auto_finer": Row("periodic_networks", "finer_camera", ("soap", "soap_S"), ("soap_auto",), 1.05, 10, slack=0.1),
    "auto_relu_coins": Row("photographs", "coins_64", ("soap", "soap_sample"), ("soap_auto",), 1.05, 20, slack=0.1),
    "auto_fourier_coins": Row("fourier", "coins_64", ("soap", "soap_sample"), ("soap_auto",), 1.05, 15, slack=0.1),
    "auto_siren_coins": Row(
        "periodic_networks", "siren_coins", ("soap", "soap_S"), ("soap_auto",), 1.05, 10, slack=0.1
    ),
    "auto_finer_coins": Row(
        "periodic_networks", "finer_coins", ("soap", "soap_S"), ("soap_auto",), 1.05, 10, slack=0.1
    ),
    "poisson_1e-3": Row("poisson", "poisson2d", EQUATION, ("gauss_newton", "spring"), 0.1, 15, target=1e-3),
    "poisson_1e-4": Row("poisson", "poisson2d", EQUATION, ("gauss_newton", "spring"), 0.1, 15, target=1e-4),
    "helmholtz_5e-2": Row("poisson", "helmholtz", EQUATION, ("gauss_newton", "spring"), 0.1, 30, target=5e-2),
}


def run_row(
    name: str, output: Path, budget: float, seeds: list[int], rates: list[float], batches: list[str]
) -> list[Standing]:
    """The cells of a row, and its table; both are left as a page and as files in a folder of the row's name."""
    row = ROWS[name]
    results: list[Result] = []
    baselines = set(row.baselines)
    budgets = budget, budget * max(1.0, row.bar)
    sides = zip((row.baselines, row.ours), budgets, strict=True)
    for (methods, whole), share in product(sides, row.shares):
        seconds = share * whole
        cfg = composed(
            [
                f"race={row.race}",
                f"tasks=[{row.task}]",
                f"methods=[{','.join(methods)}]",
                f"budget={seconds}",
                f"seeds={seeds}".replace(" ", ""),
                f"rates={rates}".replace(" ", ""),
                *([f"batch_sizes=[{','.join(batches)}]"] if batches else []),
                "calibration_steps=20",
                f"evaluations={round(80 * share)}",
                f"output_dir='{output / row.race}'",
            ],
            "compare",
        )
        for result in race(cfg):
            method = result.cell.method if share == 1 else f"{result.cell.method} in {seconds:g} s"
            results.append(replace(result, cell=replace(result.cell, method=method)))
            baselines |= {method} if result.cell.method in row.baselines else set()
    table = standings(results, baselines, metric(cfg), row.target, row.slack)
    cfg.race.name, cfg.race.target, cfg.budget = name, table[0].target, sorted({*budgets})
    publish(cfg, output / name, results, table)
    return table


def verdict(name: str, row: Row, table: list[Standing], budget: float) -> str:
    """One line of the table. Where no baseline reaches the target, the ratio is below that over its whole time."""
    theirs = min((s for s in table if s.baseline), key=lambda s: s.seconds)
    ours = min((s for s in table if not s.baseline), key=lambda s: s.seconds)
    reached = math.isfinite(theirs.seconds)
    ratio = ours.seconds / (theirs.seconds if reached else budget)
    met = "not reached" if math.isinf(ours.seconds) else "met" if ratio <= row.bar else "MISSED" if reached else "open"
    baseline = f"{theirs.method} {theirs.seconds:.1f} s" if reached else f"none in {budget:g} s"
    mine = f"{ours.method} {ours.seconds:.1f} s"
    shown = f"{'' if reached else '< '}{ratio:.2f}"
    return f"{name:<15} {theirs.target:>9.4g}  {baseline:<18} {mine:<22} {shown:>7} {row.bar:>5}  {met}"


def main() -> None:
    """Run the rows that are named, and print the table of the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a fifth of the time, the first seed")
    parser.add_argument("--budget", type=float, help="CPU seconds of every cell, in place of the row's own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("--batches", nargs="+", default=[], help="own, all or numbers, in place of the race's own list")
    parser.add_argument("--output", type=Path, default=Path("runs/time_to_target"))
    args = parser.parse_args()
    unknown = [name for name in args.rows if name not in ROWS]
    if unknown:
        parser.error(f"there is no row {', '.join(unknown)}; the rows are {', '.join(ROWS)}")
    lines = []
    for name in args.rows or ROWS:
        row, share = ROWS[name], 0.2 if args.quick else 1.0
        budget = args.budget or share * row.budget
        seeds = args.seeds[:1] if args.quick else args.seeds
        table = run_row(name, args.output, budget, seeds, args.rates, args.batches)
        lines.append(verdict(name, row, table, budget))
        print(lines[-1], flush=True)
    print(f"\n{'row':<15} {'target':>9}  {'best baseline':<18} {'best of ours':<22} {'ratio':>7} {'bar':>5}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
