"""What a study found: numbers, figures, and the rows that a person reads at its end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

# A drawing function of plots/ and the arrays it is called with, which are kept beside the figure.
Drawing = tuple[Callable[..., Figure], dict[str, Any]]


@dataclass(frozen=True)
class Findings:
    """The outcome of a study.

    `headline` goes into summary.json and to the trackers; its first entry is the study's one number. `figures` maps a
    name to a drawing, `animations` a file name to what writes it. `table` are the rows (name, text) for the terminal.
    """

    headline: Mapping[str, float | int | str | bool | None]
    figures: Mapping[str, Drawing]
    table: list[tuple[str, str]]
    animations: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)
