"""A race as one HTML file that opens offline: tables, curves, pictures, and the command behind every cell."""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectrain import plots
from spectrain.cli import page
from spectrain.cli.race_cells import Result
from spectrain.cli.standings import Metric, Standing


def write_page(place: Path, config: Any, results: Sequence[Result], table: Sequence[Standing], metric: Metric) -> Path:
    """Write index.html and return its path."""
    race = config["race"]
    parts = [f"<h1>Race: {html.escape(str(race['name']))}</h1>", _rules(config)]
    for task in dict.fromkeys(s.task for s in table):
        rows = [s for s in table if s.task == task]
        mine = [r for r in results if r.cell.task == task]
        parts += [f"<h2>{html.escape(task)}</h2>", _table(rows, race, metric), _failures(mine)]
        parts += [_curves(rows, mine, race, metric), _pictures(rows, mine, metric), _commands(mine, race)]
    return page.write_document(place / "index.html", f"Race: {race['name']}", "\n".join(parts))


def _rules(config: Any) -> str:
    seeds, rates, target = config["seeds"], config["rates"], config["race"]["target"]
    batches = [str(batch) for batch in config["batch_sizes"]]
    budgets = config["budget"] if isinstance(config["budget"], list) else [config["budget"]]
    target_is = (
        "The target of a task is the best baseline's final value (median over seeds at its best trial)."
        if target is None
        else f"The target is {target:.4g} {config['race']['unit']}".strip() + "."
    )
    return (
        f"<p>Every method gets {' or '.join(f'{b:g}' for b in budgets)} CPU seconds of one thread on every task, "
        f"{_count(rates, 'learning rate')} ({', '.join(f'{r:g}' for r in rates)} times its default), each with "
        f"{_count(batches, 'batch size')} ({', '.join(batches)}), on the first seed, and "
        f"{_count(seeds, 'seed')} with the best of these; its schedule is stretched to fill the time. Refreshes of "
        f"the spectrum are charged, evaluations are not. {target_is} Time to target is that of the fastest trial of "
        "each seed, median over seeds; the ratio is over the fastest baseline's.</p>"
    )


def _label(race: Any, metric: Metric) -> str:
    return f"{metric.name}, {race['unit']}" if race["unit"] else metric.name


def _count(things: Sequence[Any], name: str) -> str:
    return f"{len(things)} {name}{'s' if len(things) != 1 else ''}"


def _table(rows: Sequence[Standing], race: Any, metric: Metric) -> str:
    final = f"final {_label(race, metric)}"
    names = (
        "method",
        "",
        final,
        "range over seeds",
        "s to target",
        "ratio",
        "rate",
        "batch",
        "steps",
        "CPU s",
        "failed",
    )
    best = metric.best([s.final for s in rows])
    lines = []
    for s in rows:
        kinds = " ".join(["" if s.baseline else "ours", "best" if s.final == best else ""]).strip()
        ends = (page.number(min(s.finals)), page.number(max(s.finals)))
        spread = " – ".join(dict.fromkeys(ends))  # of one seed its value
        cells = [
            page.text_cell(s.method),
            page.text_cell("baseline" if s.baseline else "ours"),
            page.number_cell(s.final),
            page.number_cell(min(s.finals), spread),
            page.number_cell(s.seconds),
            page.number_cell(s.ratio),
            page.number_cell(s.rate),
            page.number_cell(float({"own": 0, "all": math.inf}.get(s.batch, s.batch)), s.batch),
            *(page.number_cell(value) for value in (s.steps, s.cpu_seconds, s.failed)),
        ]
        lines.append(page.row(cells, kinds))
    return page.table(names, lines)


def _failures(results: Sequence[Result]) -> str:
    """Why each cell failed: a person looks for it beside the table that says so."""
    lines = [f"<br>{html.escape(_cell(r))}: {html.escape(r.error)}" for r in results if not r.curve]
    return f"<p>Failed:{''.join(lines)}</p>" if lines else ""


def _cell(r: Result) -> str:
    return f"{r.cell.method}, seed {r.cell.seed}, rate {r.cell.rate:g}, batch {r.cell.batch}"


def _curves(rows: Sequence[Standing], results: Sequence[Result], race: Any, metric: Metric) -> str:
    points = [
        (r.cell.method, r.cell.seed, row["cpu_seconds"], row["step"], row[metric.name])
        for s in rows
        for r in results
        if (r.cell.method, r.cell.trial) == (s.method, s.trial)
        for row in r.curve
        if metric.name in row
    ]
    if not points:
        return "<p>No cell of this task came to an end.</p>"
    columns: dict[str, Any] = dict(
        zip(("method", "seed", "seconds", "step", "value"), zip(*points, strict=True), strict=True)
    )
    curves = plots.race_figure(
        **columns,
        label=_label(race, metric),
        target=rows[0].target,
        logarithmic=not metric.higher,
    )
    caption = "Each method at its best trial; line: median over the seeds, band: their range, dotted: the target."
    return page.figure(plots.svg_text(curves), caption)


def _pictures(rows: Sequence[Standing], results: Sequence[Result], metric: Metric) -> str:
    """The first seed's pictures of every method at its best trial, where the task is one of pictures."""
    titles: list[str] = []
    pictures: list[Any] = []
    for s in rows:
        result = next(r for r in results if (r.cell.method, r.cell.trial) == (s.method, s.trial))
        stored = result.folder / "figures" / "reconstruction.npz"
        if not stored.exists():
            continue
        arrays = plots.load_arrays(stored)
        if not pictures:
            titles.append("target")
            pictures.append(arrays["target"])
        titles.append(f"{s.method}\n{metric.final(result):.4g}")
        pictures.append(arrays["reconstruction"])
    return page.figure(plots.svg_text(plots.pictures_figure(titles, pictures))) if pictures else ""


def _commands(results: Sequence[Result], race: Any) -> str:
    lines = []
    for r in results:
        outcome = f"{r.curve[-1].get(race['metric'], math.nan):.4g}" if r.curve else "failed"
        lines.append(f"<div>{html.escape(_cell(r))}: {outcome}<br><code>{html.escape(r.cell.command())}</code></div>")
    summary = f"Every cell and the command that repeats it ({len(results)})"
    return f"<details><summary>{summary}</summary>{''.join(lines)}</details>"
