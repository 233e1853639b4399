"""``spectrain-report``: one offline page of one or several runs."""

import argparse
import html
import sys
from pathlib import Path
from typing import Any

import numpy as np

from spectrain import plots
from spectrain.cli.errors import run_guarded
from spectrain.cli.page import figure, image, number_cell, row, table, text_cell, write_document
from spectrain.cli.report_runs import TIMES, Run, differences, read_runs
from spectrain.errors import InputError

COSTS = ("steps", "seconds", "cpu_seconds", "refresh_seconds", "peak_memory_mib")
# Values that span more than this are shown on a logarithmic axis.
DECADES = 30.0


def write_report(folders: list[str], output: str | None = None) -> Path:
    """Write the page of these runs: numbers, curves, spectra, pictures, what their configurations differ in.

    Raises:
        InputError: a folder is not that of a run, or the page has no place.
    """
    runs = read_runs(folders)
    place = Path(output) if output is not None else (runs[0].folder if len(runs) == 1 else Path()) / "report.html"
    if place.is_dir() or not place.parent.is_dir():
        raise InputError(f"--output={place} must be the name of a file in a folder that exists.")
    title = f"Run {runs[0].name}" if len(runs) == 1 else f"{len(runs)} runs"
    parts = [f"<h1>{html.escape(title)}</h1>", _origin(runs), "<h2>Numbers</h2>", _numbers(runs), _all_numbers(runs)]
    parts += ["<h2>Configuration</h2>", _configuration(runs)]
    parts += [_curves(runs), _spectra(runs), _pictures(runs)]
    return write_document(place, title, "\n".join(parts))


def metrics(runs: list[Run]) -> list[str]:
    """The names of what was measured, in their order; bands of modes have a figure of their own."""
    names = dict.fromkeys(name for run in runs for line in run.curve for name in line)
    return [name for name in names if name not in TIMES and not name.startswith("band_")]


def _origin(runs: list[Run]) -> str:
    versions = sorted({str(run.summary["spectrain"]) for run in runs if "spectrain" in run.summary})
    unfinished = [run.name for run in runs if not run.summary]
    words = f"Written by spectrain {', '.join(versions)}." if versions else ""
    if unfinished:
        words += f" Not finished: {', '.join(unfinished)}."
    return f"<p>{html.escape(words)}</p>"


def _numbers(runs: list[Run]) -> str:
    names = metrics(runs)
    costs = [name for name in COSTS if any(name in run.summary for run in runs)]
    lines = [
        row(
            [
                text_cell(run.name),
                *(number_cell(run.last(name)) for name in names),
                *(_cell(run.summary.get(name)) for name in costs),
            ]
        )
        for run in runs
    ]
    return table(["run", *names, *costs], lines, "sortable one")


def _all_numbers(runs: list[Run]) -> str:
    names = dict.fromkeys(name for run in runs for name in run.summary)
    lines = [row([text_cell(name), *(_cell(run.summary.get(name)) for run in runs)]) for name in names]
    shown = table(["", *(run.name for run in runs)], lines, "one")
    return f"<details><summary>All of summary.json ({len(names)} numbers)</summary>{shown}</details>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return number_cell(value)
    return text_cell("–" if value is None else value)


def _configuration(runs: list[Run]) -> str:
    found = differences(runs)
    if len(runs) == 1:
        shown = ""
    elif not found:
        shown = "<p>All runs have the same settings.</p>"
    else:
        lines = [row([text_cell(key), *(text_cell(value) for value in values)]) for key, values in found]
        shown = table(["differs", *(run.name for run in runs)], lines, "one")
    for run in runs:
        text = html.escape((run.folder / "config.yaml").read_text(encoding="utf-8"))
        shown += f"<details><summary>config.yaml of {html.escape(run.name)}</summary><code>{text}</code></details>"
    return shown


def _curves(runs: list[Run]) -> str:
    drawn = "".join(_curve(runs, name) for name in metrics(runs))
    return f"<h2>Curves</h2>{drawn}" if drawn else ""


def _curve(runs: list[Run], name: str) -> str:
    """A metric against CPU seconds and steps, of the runs that have it."""
    points = [
        (run.name, 0, line["cpu_seconds"], line["step"], line[name])
        for run in runs
        for line in run.curve
        if name in line and "cpu_seconds" in line
    ]
    if not points:
        return ""
    names, seeds, seconds, steps, values = zip(*points, strict=True)
    logarithmic = min(values) > 0 and max(values) > DECADES * min(values)
    drawn = plots.race_figure(names, seeds, seconds, steps, values, name, float("nan"), logarithmic)
    return f"<h3>{html.escape(name)}</h3>{figure(plots.svg_text(drawn))}"


def _spectra(runs: list[Run]) -> str:
    known = [run for run in runs if run.modes]
    if not known:
        return ""
    names = ("eigenvalue", "mapped_eigenvalue", "energy")
    columns = [[np.asarray(run.modes[name]) for run in known] for name in names]
    drawn = plots.spectra_figure([run.name for run in known], *columns)
    caption = (
        "Of the kernel at the run's start, on all training points; the map is the one in use at the end. Steps that "
        "each mode should take are in modes.csv."
    )
    return f"<h2>Spectra</h2>{figure(plots.svg_text(drawn), caption)}"


def _pictures(runs: list[Run]) -> str:
    """Every figure of the runs' folders, those of one name together."""
    files = [(run, file) for run in runs for file in sorted((run.folder / "figures").glob("*.[pg][ni][gf]"))]
    parts = []
    curves = {*metrics(runs), "convergence"}  # shown above from the runs' own numbers, by the metrics' names
    for name in dict.fromkeys(file.name for _, file in files):
        if Path(name).stem not in curves:
            moving = " over time" if name.endswith(".gif") else ""
            parts.append(f"<h3>{html.escape(Path(name).stem.replace('_', ' '))}{moving}</h3>")
            parts += [figure(image(file), run.name) for run, file in files if file.name == name]
    return f"<h2>Figures</h2>{''.join(parts)}" if parts else ""


def main() -> None:
    """Read the command line, write the page, say where it is."""
    parser = argparse.ArgumentParser(prog="spectrain-report", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run, such as runs/NAME")
    where = "the page (default: RUN/report.html, or report.html here for several runs)"
    parser.add_argument("-o", "--output", help=where)
    words = parser.parse_args()
    code = run_guarded(lambda: print(f"report: {write_report(words.runs, words.output)}"))
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
