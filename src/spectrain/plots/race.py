"""Figures of a race: curves of every method on a task, and their pictures side by side.

Shapes: N evaluated points of all curves together, H rows, W columns, C channels.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from spectrain.plots.style import WIDTH, line_style, new_figure, styled

Array = np.ndarray


@styled
def race_figure(
    method: Sequence[str],
    seed: Sequence[int],
    seconds: Sequence[float],
    step: Sequence[float],
    value: Sequence[float],
    label: str,
    target: float,
    logarithmic: bool = False,
) -> Figure:
    """The metric against CPU seconds and against steps: the median over the seeds, and their range as a band.

    One row of the arguments for every evaluated point; a method's curves are read off where its first seed was
    evaluated. The dotted line is the target.
    """
    columns = {name: np.asarray(data) for name, data in {"method": method, "seed": seed, "value": value}.items()}
    figure = new_figure(3.2)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, across, name in zip(axes, (seconds, step), ("CPU seconds", "steps"), strict=True):
        x = np.asarray(across, float)
        for number, key in enumerate(dict.fromkeys(columns["method"].tolist())):
            mine = columns["method"] == key
            curves = _on_one_axis(x[mine], columns["seed"][mine], columns["value"][mine].astype(float))
            style = line_style(number)
            axis.plot(curves[0], np.median(curves[1:], axis=0), label=key, **style)
            axis.fill_between(curves[0], curves[1:].min(0), curves[1:].max(0), color=style["color"], alpha=0.15, lw=0)
        if np.isfinite(target):
            axis.axhline(target, color="black", lw=0.8, linestyle=":")
        axis.set_xlabel(name)
    axes[0].set_ylabel(label)
    if logarithmic:
        axes[0].set_yscale("log")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


def _on_one_axis(x: Array, seed: Array, value: Array) -> Float[Array, "seeds_and_one points"]:
    """First row: the first seed's x; then each seed's values there."""
    order = list(dict.fromkeys(seed.tolist()))
    grid = x[seed == order[0]]
    return np.stack([grid, *(np.interp(grid, x[seed == s], value[seed == s]) for s in order)])


@styled
def pictures_figure(titles: Sequence[str], pictures: Sequence[Float[Array, "H W C"]]) -> Figure:
    """Pictures with values in [-1, 1] side by side, at most four in a row."""
    columns = min(4, len(pictures))
    rows = -(-len(pictures) // columns)
    height, width = np.asarray(pictures[0]).shape[:2]
    figure = new_figure(rows * (WIDTH / columns * height / width + 0.4))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, title, picture in zip(axes, titles, pictures, strict=False):
        image = (np.clip(np.asarray(picture, float), -1, 1) + 1) / 2
        grey = {"cmap": "gray", "vmin": 0, "vmax": 1} if image.shape[2] == 1 else {}
        axis.imshow(np.squeeze(image, axis=2) if grey else image, interpolation="nearest", **grey)
        axis.set_title(title)
    return figure
