"""What a finished study leaves in its folder, shows to the trackers, and prints."""

import json
import sys
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from rich.console import Console
from rich.table import Table

from spectrain import plots
from spectrain.lightning.report import environment, show
from spectrain.studies import Findings


def finish_study(folder: Path, findings: Findings, logger: Logger | None, *, figures: bool = True) -> dict[str, Any]:
    """Write summary.json and figures/, show them to the logger, print the table; return the summary."""
    summary = {**findings.headline, **environment()}
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    drawn = []
    if figures:
        (folder / "figures").mkdir(exist_ok=True)
        for name, (draw, arrays) in findings.figures.items():
            figure = draw(**arrays)
            plots.save_figure(figure, folder / "figures" / name, arrays)
            drawn.append((name, folder / "figures" / f"{name}.png", figure))
        for name, write in findings.animations.items():
            write(folder / "figures" / name)
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = [*findings.table, ("summary", str(folder / "summary.json"))]
    for row in [*rows, ("figures", str(folder / "figures"))] if figures else rows:
        table.add_row(*row)
    Console(file=sys.stdout, highlight=False, width=200).print(table)
    show([logger] if logger is not None else [], summary, drawn, step=0)
    return summary
