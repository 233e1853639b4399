"""The figure of a film: some frames, and how well each of all is reproduced.

Shapes: K frames shown, T frames, H rows, W columns, C channels.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spectrain.plots.figures import decibels
from spectrain.plots.style import COLOURS, WIDTH, new_figure, styled

Array = np.ndarray


@styled
def frames_figure(
    number: Int[Array, " K"],
    target: Float[Array, "K H W C"],
    reconstruction: Float[Array, "K H W C"],
    mse: Float[Array, " T"],
    heldout: Bool[Array, " T"],
) -> Figure:
    """Above, frames and their reconstructions, values in [-1, 1]; below, the PSNR of every frame, 10 log10(4 / mse).

    `number` counts the frames from 1. Frames that were not trained on (`heldout`) are hollow points.
    """
    count, height, width = np.shape(target)[:3]
    side = WIDTH / count * height / width
    figure = new_figure(2 * side + 2.4)
    parts: Any = figure.subfigures(2, 1, height_ratios=[2 * side + 0.4, 2.0])
    sheet, below = parts
    axes = sheet.subplots(2, count, squeeze=False)
    for row, (name, film) in enumerate((("target", target), ("reconstruction", reconstruction))):
        axes[row, 0].set_ylabel(name)
        for axis, frame in zip(axes[row], (np.clip(np.asarray(film, float), -1, 1) + 1) / 2, strict=True):
            grey = {"cmap": "gray", "vmin": 0, "vmax": 1} if frame.shape[2] == 1 else {}
            axis.imshow(np.squeeze(frame, axis=2) if grey else frame, interpolation="nearest", **grey)
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(False)
    for axis, k in zip(axes[0], number, strict=True):
        axis.set_title(f"{k}: {decibels(mse[int(k) - 1])}")
    axis = below.subplots()
    frames = np.arange(1, len(mse) + 1)
    psnr = 10 * np.log10(4 / np.maximum(np.asarray(mse, float), 1e-30))
    for kind, filled, name in ((~np.asarray(heldout), True, "trained on"), (np.asarray(heldout), False, "held out")):
        if kind.any():
            face = COLOURS[0] if filled else "white"
            axis.plot(frames[kind], psnr[kind], "o", ms=4, color=COLOURS[0], markerfacecolor=face, label=name)
    axis.set(xlabel="frame", ylabel="PSNR (dB)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if np.any(heldout):
        axis.legend(loc="best")
    return figure
