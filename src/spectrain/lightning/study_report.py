"""What a finished study leaves in its folder, shows to the trackers, and prints."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from rich.console import Console
from rich.table import Table

from spectrain.lightning.outputs import Outputs
from spectrain.lightning.report import environment, save_figures
from spectrain.lightning.tracking import show
from spectrain.studies import Findings


def finish_study(
    folder: Path, findings: Findings, loggers: Sequence[Logger], *, figures: bool = True
) -> dict[str, Any]:
    """Write summary.json and figures/, show them to the loggers, print the table; return the summary."""
    summary = {**findings.headline, **environment()}
    outputs = Outputs()
    outputs.write_summary(folder, summary)
    drawn, moving = [], [folder / "figures" / name for name in findings.animations]
    if figures:
        outputs.write("figures", lambda: (folder / "figures").mkdir(exist_ok=True))
        drawn = save_figures(outputs, folder / "figures", dict(findings.figures))
        for path in moving:
            outputs.write(path.name, functools.partial(findings.animations[path.name], path))
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = [*findings.table, ("summary", str(folder / "summary.json"))]
    for row in [*rows, ("figures", str(folder / "figures"))] if figures else rows:
        table.add_row(*row)
    Console(file=sys.stdout, highlight=False, width=200).print(table)
    show(loggers, summary, drawn, moving=[path for path in moving if path.exists()], step=0)
    outputs.finish()
    return summary
