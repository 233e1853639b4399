"""One look for every figure, and how a figure and its numbers are saved.

Figures are plain matplotlib Figure objects: pyplot keeps global state and asks for a display, neither belongs in a run.
"""

import io
import re
import zlib
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

# Okabe & Ito 2008: told apart with every kind of colour blindness. Yellow is left out, it vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# They tell curves apart beyond the number of colours, and in print.
DASHES = ("-", "--", ":", "-.")
UNRESOLVED = "#B0B0B0"
WIDTH = 7.0  # inches: the text width of a page

STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # text stays text in the PDF
}


def line_style(number: int) -> dict[str, Any]:
    """Colour and dashes of curve `number`: each colour once, then again with the next dashes."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number // len(COLOURS) % len(DASHES)]}


Draw = TypeVar("Draw", bound=Callable[..., Figure])


def styled(draw: Draw) -> Draw:
    """Run a drawing function under STYLE, leaving matplotlib's own settings as they were."""

    @wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return cast(Draw, wrapper)


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure of width x height inches whose parts never overlap."""
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | Path, arrays: Mapping[str, Any]) -> list[Path]:
    """Write path.png, path.pdf and, from `arrays`, path.npz: the numbers behind the figure. Return the three paths.

    `arrays` holds the arguments the figure was drawn with (None is left out), so that
    `draw(**load_arrays(path))` draws it again. Folders are made. TypeError for what cannot be saved as plain numbers
    or text.
    """
    numbers = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
    for name, value in numbers.items():
        if value.dtype.hasobject:
            raise TypeError(f"array {name!r} of a figure must be numbers or text, not {type(arrays[name]).__name__}")
    base = Path(path)
    base.parent.mkdir(parents=True, exist_ok=True)
    png, pdf, npz = (base.with_name(f"{base.name}.{suffix}") for suffix in ("png", "pdf", "npz"))
    with matplotlib.rc_context(STYLE):
        figure.savefig(png)
        figure.savefig(pdf, metadata={"CreationDate": None})  # the same numbers give the same bytes
    np.savez_compressed(npz, **cast(Any, numbers))
    return [png, pdf, npz]


def svg_text(figure: Figure) -> str:
    """The figure as an <svg> element for a page; the ids of several on one page stay apart."""
    file = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "spectrain"}):  # the same numbers give the same text
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    prefix = f"s{zlib.crc32(text.encode()):08x}_"
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\1{prefix}", text[text.index("<svg") :])


def load_arrays(path: str | Path) -> dict[str, Any]:
    """Return the arguments that `save_figure` wrote next to a figure; `path` with or without .npz."""
    base = Path(path)
    with np.load(base if base.suffix == ".npz" else base.with_name(f"{base.name}.npz")) as stored:
        return {name: stored[name][()] for name in stored.files}
