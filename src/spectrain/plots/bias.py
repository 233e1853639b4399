"""The spectral bias of a network that learns a picture: shares of the residual's energy, still and moving.

Shapes: M methods, T steps, B bands of modes, R rings of frequency, F radii, H rows, W columns.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure

from spectrain.plots.figures import band_names, shades, step_axis
from spectrain.plots.style import COLOURS, STYLE, new_figure, styled

Array = np.ndarray


def ring_names(edge: Sequence[int] | Array) -> list[str]:
    """["frequencies 0–1", "frequencies 2–3", "4 and above"] for edges [0, 2, 4], the first of each ring."""
    edges = [int(e) for e in edge]
    inner = [f"frequencies {a}–{b - 1}" for a, b in pairwise(edges)]
    return [*inner, f"{edges[-1]} and above"]


@styled
def bias_figure(
    step: Int[Array, " T"],
    bands: Float[Array, "M T B"],
    rings: Float[Array, "M T R"],
    last_mode: Int[Array, " B1"],
    edge: Int[Array, " R"],
    method: Sequence[str] | Array,
) -> Figure:
    """Share of the energy left in each band of modes (above) and ring of frequencies (below); a column per method."""
    figure = new_figure(4.8)
    axes = figure.subplots(2, len(method), sharex=True, sharey=True, squeeze=False)
    rows = ((bands, band_names(last_mode)), (rings, ring_names(edge)))
    for row, (line, (values, names)) in enumerate(zip(axes, rows, strict=True)):
        colours = shades(len(names))
        for m, axis in enumerate(line):
            for b, name in enumerate(names):
                axis.plot(step, np.asarray(values)[m, :, b], color=colours[b], label=name)
            step_axis(axis, np.asarray(step))
            axis.set(yscale="log", ylim=(1e-4, 2), title="" if row else str(method[m]), xlabel="")
        line[0].set_ylabel("share of the energy left")
        line[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    for axis in axes[-1]:
        axis.set_xlabel("steps")
    return figure


def save_bias_animation(
    path: Path,
    step: Int[Array, " T"],
    rings: Float[Array, "M T F"],
    target: Float[Array, "H W"],
    pictures: Float[Array, "M T H W"],
    method: Sequence[str] = ("gradient descent", "with S"),
) -> None:
    """A GIF over the steps: target and reconstructions above, the share of the energy left at each radius below."""
    with matplotlib.rc_context({**STYLE, "savefig.dpi": 90}):
        figure = Figure(figsize=(6.2, 4.4), layout="constrained")
        parts: dict[str, Any] = figure.subplot_mosaic([["0", "1", "2"], ["e", "e", "e"]], height_ratios=[1.25, 1])
        shown = [np.broadcast_to(target, pictures.shape[1:]), *pictures]
        grey: dict[str, Any] = {"cmap": "gray", "vmin": -1, "vmax": 1, "interpolation": "nearest"}
        images = []
        for j, (name, values) in enumerate(zip(("target", *method), shown, strict=True)):
            axis = parts[str(j)]
            images.append(axis.imshow(values[0], **grey))
            axis.set_title(name)
            axis.set_axis_off()
        axis = parts["e"]
        lines = [axis.plot(rings[m, 0], color=COLOURS[m], label=name)[0] for m, name in enumerate(method)]
        axis.set(yscale="log", ylim=(1e-4, 3), xlabel="frequency (half periods over the picture)")
        axis.set_ylabel("share of energy left")
        axis.legend(loc="lower right", ncols=2)
        heading = figure.suptitle("step 0")

        def draw(t: int) -> list[Any]:
            heading.set_text(f"step {step[t]}")
            for image, values in zip(images, shown, strict=True):
                image.set_data(values[t])
            for line, values in zip(lines, rings, strict=True):
                line.set_ydata(values[t])
            return []

        frames = [*range(len(step)), *[len(step) - 1] * 6]  # the last picture stays for a while
        FuncAnimation(figure, draw, frames=frames).save(str(path), writer=PillowWriter(fps=8))
