"""A race as one HTML file that opens offline: tables, curves, pictures, and the command behind every cell."""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectrain import plots
from spectrain.cli.race_cells import Result
from spectrain.cli.standings import Metric, Standing

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
th { cursor: pointer; border-bottom: 2px solid #888; user-select: none; }
tr.ours td { background: #eef6fb; } tr.best td { font-weight: 600; }
.wide { overflow-x: auto; } figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
code { font-size: .8rem; background: #f5f5f5; padding: .1rem .3rem; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .3rem 0; }
"""
SORT = """
document.querySelectorAll('table.sortable th').forEach(th => th.addEventListener('click', () => {
  const body = th.closest('table').tBodies[0], column = th.cellIndex;
  const falling = th.dataset.order === 'rising'; th.dataset.order = falling ? 'falling' : 'rising';
  const value = row => { const text = row.cells[column].dataset.value ?? row.cells[column].textContent;
    return text === '' || isNaN(text) ? text : Number(text); };
  [...body.rows].sort((a, b) => { const x = value(a), y = value(b);
    return (x > y ? 1 : x < y ? -1 : 0) * (falling ? -1 : 1); }).forEach(row => body.append(row));
}));
"""


def write_page(place: Path, config: Any, results: Sequence[Result], table: Sequence[Standing], metric: Metric) -> Path:
    """Write index.html and return its path."""
    race = config["race"]
    parts = [f"<h1>Race: {html.escape(str(race['name']))}</h1>", _rules(config)]
    for task in dict.fromkeys(s.task for s in table):
        rows = [s for s in table if s.task == task]
        mine = [r for r in results if r.cell.task == task]
        parts += [f"<h2>{html.escape(task)}</h2>", _table(rows, race, metric), _curves(rows, mine, race, metric)]
        parts += [_pictures(rows, mine, metric), _commands(mine, race)]
    body = "\n".join(parts)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    title = f"<title>Race: {html.escape(str(race['name']))}</title>"
    page = place / "index.html"
    page.write_text(
        f'<!doctype html><html lang="en"><head>{head}{title}<style>{STYLE}</style></head>'
        f"<body>{body}<script>{SORT}</script></body></html>\n",
        encoding="utf-8",
    )
    return page


def _rules(config: Any) -> str:
    seeds, rates, target = config["seeds"], config["rates"], config["race"]["target"]
    budgets = config["budget"] if isinstance(config["budget"], list) else [config["budget"]]
    target_is = (
        "The target of a task is the best baseline's final value (median over seeds at its best rate)."
        if target is None
        else f"The target is {target:g}."
    )
    return (
        f"<p>Every method gets {' or '.join(f'{b:g}' for b in budgets)} CPU seconds of one thread on every task, "
        f"{_count(rates, 'learning rate')} ({', '.join(f'{r:g}' for r in rates)} times its default, on "
        f"the first seed) and {_count(seeds, 'seed')}; its schedule is stretched to fill the time. Refreshes of "
        f"the spectrum are charged, evaluations are not. {target_is} Time to target is that of the fastest rate of "
        "each seed, median over seeds; the ratio is over the fastest baseline's.</p>"
    )


def _label(race: Any, metric: Metric) -> str:
    return f"{metric.name}, {race['unit']}" if race["unit"] else metric.name


def _count(things: Sequence[Any], name: str) -> str:
    return f"{len(things)} {name}{'s' if len(things) != 1 else ''}"


def _table(rows: Sequence[Standing], race: Any, metric: Metric) -> str:
    names = ("method", "", f"final {_label(race, metric)}", "range over seeds", "rate", "steps", "CPU s", "s to target")
    head = "".join(f"<th>{html.escape(name)}</th>" for name in (*names, "ratio", "failed"))
    best = metric.best([s.final for s in rows])
    lines = []
    for s in rows:
        kinds = " ".join(["" if s.baseline else "ours", "best" if s.final == best else ""]).strip()
        spread = f"{min(s.finals):.4g} – {max(s.finals):.4g}"
        cells = [
            f"<td>{html.escape(s.method)}</td>",
            f"<td>{'baseline' if s.baseline else 'modified spectrum'}</td>",
            *(_number(value) for value in (s.final,)),
            f'<td data-value="{min(s.finals)}">{spread}</td>',
            *(_number(value) for value in (s.rate, s.steps, s.cpu_seconds, s.seconds, s.ratio, s.failed)),
        ]
        lines.append(f'<tr class="{kinds}">{"".join(cells)}</tr>')
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _number(value: float) -> str:
    shown = f"{value:.4g}" if math.isfinite(value) else ("not reached" if math.isinf(value) else "–")
    return f'<td data-value="{value if math.isfinite(value) else 1e300}">{shown}</td>'


def _curves(rows: Sequence[Standing], results: Sequence[Result], race: Any, metric: Metric) -> str:
    points = [
        (r.cell.method, r.cell.seed, row["cpu_seconds"], row["step"], row[metric.name])
        for s in rows
        for r in results
        if (r.cell.method, r.cell.rate) == (s.method, s.rate)
        for row in r.curve
        if metric.name in row
    ]
    if not points:
        return "<p>No cell of this task came to an end.</p>"
    columns: dict[str, Any] = dict(
        zip(("method", "seed", "seconds", "step", "value"), zip(*points, strict=True), strict=True)
    )
    figure = plots.race_figure(
        **columns,
        label=_label(race, metric),
        target=rows[0].target,
        logarithmic=not metric.higher,
    )
    caption = "Each method at its best rate; line: median over the seeds, band: their range, dotted: the target."
    return f"<figure>{plots.svg_text(figure)}<figcaption>{caption}</figcaption></figure>"


def _pictures(rows: Sequence[Standing], results: Sequence[Result], metric: Metric) -> str:
    """The first seed's pictures of every method at its best rate, where the task is one of pictures."""
    titles: list[str] = []
    pictures: list[Any] = []
    for s in rows:
        result = next(r for r in results if (r.cell.method, r.cell.rate) == (s.method, s.rate))
        stored = result.folder / "figures" / "reconstruction.npz"
        if not stored.exists():
            continue
        arrays = plots.load_arrays(stored)
        if not pictures:
            titles.append("target")
            pictures.append(arrays["target"])
        titles.append(f"{s.method}, {metric.final(result):.4g}")
        pictures.append(arrays["reconstruction"])
    return f"<figure>{plots.svg_text(plots.pictures_figure(titles, pictures))}</figure>" if pictures else ""


def _commands(results: Sequence[Result], race: Any) -> str:
    lines = []
    for r in results:
        outcome = f"{r.curve[-1].get(race['metric'], math.nan):.4g}" if r.curve else html.escape(r.error)
        what = f"{r.cell.method}, seed {r.cell.seed}, rate {r.cell.rate:g}: {outcome}"
        lines.append(f"<div>{html.escape(what)}<br><code>{html.escape(r.cell.command())}</code></div>")
    summary = f"Every cell and the command that repeats it ({len(results)})"
    return f"<details><summary>{summary}</summary>{''.join(lines)}</details>"
