"""Figures of a differential equation's solution, each from plain arrays.

Shapes: R, K points along the two axes of a map, T rows of a history.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spectrain.plots.style import COLOURS, STYLE, new_figure, styled

Array = np.ndarray


@styled
def map_figure(
    first: Float[Array, " R"],
    second: Float[Array, " K"],
    names: Sequence[str],
    **maps: Float[Array, "R K"],
) -> Figure:
    """Maps over two inputs side by side, among `solution`, `reference`, `error` |u - u*| and `residual` |r|.

    Solution and reference share one colour scale; error and residual have their own. NaN, outside the domain, is blank.
    """
    titles = {"solution": "Solution", "reference": "Reference", "error": "|Error|", "residual": "|Residual|"}
    shown = {name: np.asarray(maps[name], float) for name in titles if name in maps}
    both = [shown[name] for name in ("solution", "reference") if name in shown]
    low, high = min(np.nanmin(m) for m in both), max(np.nanmax(m) for m in both)
    ratio = float(np.ptp(second) / np.ptp(first))
    height = 2.2 if not 0.4 <= ratio <= 2.5 else float(np.clip(7.0 / len(shown) * ratio + 0.7, 1.8, 3.2))
    figure = new_figure(height, 9.0 if len(shown) > 3 else 7.0)
    axes = np.atleast_1d(figure.subplots(1, len(shown), sharey=True))
    for axis, (name, values) in zip(axes, shown.items(), strict=True):
        common = name in ("solution", "reference")
        limits = {"vmin": low, "vmax": high, "cmap": "viridis"} if common else {"vmin": 0.0, "cmap": "cividis"}
        drawn = axis.pcolormesh(first, second, values.T, shading="nearest", rasterized=True, **limits)
        axis.set(title=titles[name], xlabel=names[0])
        axis.set_aspect("equal" if 0.4 <= ratio <= 2.5 and not names[1].startswith("t") else "auto")
        axis.grid(False)
        bar = figure.colorbar(drawn, ax=axis, location="bottom", fraction=0.06, pad=0.02)
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(3)
        bar.ax.ticklabel_format(axis="x", scilimits=(-2, 3))
        bar.update_ticks()
    axes[0].set_ylabel(names[1])
    return figure


@styled
def convergence_figure(
    step: Float[Array, " T"],
    cpu_seconds: Float[Array, " T"],
    loss: Float[Array, " T"],
    fresh_loss: Float[Array, " T"],
    l2_error: Float[Array, " T"] | None = None,
    h1_error: Float[Array, " T"] | None = None,
) -> Figure:
    """Relative errors against CPU seconds, and the loss on the points trained on and on fresh ones against steps.

    Where the two losses part, the network fits its points and not the equation between them.
    """
    known = [(name, v) for name, v in (("relative L2", l2_error), ("relative H1", h1_error)) if v is not None]
    figure = new_figure(2.9, 7.0 if known else 4.0)
    axes = np.atleast_1d(figure.subplots(1, 1 + bool(known)))
    for name, values in known:
        axes[0].plot(cpu_seconds, _positive(values), label=name)
    if known:
        axes[0].set(yscale="log", xlabel="CPU seconds", ylabel="error", title="Error against the reference")
        axes[0].legend()
    axes[-1].plot(step, _positive(loss), color=COLOURS[2], label="points trained on")
    axes[-1].plot(step, _positive(fresh_loss), color=COLOURS[3], ls="--", label="fresh points")
    axes[-1].set(yscale="log", xlabel="optimizer steps", ylabel="loss", title="Loss")
    axes[-1].legend()
    for axis in axes:
        axis.set_xlim(left=0)
    return figure


@styled
def profile_figure(
    x: Float[Array, " R"], solution: Float[Array, " R"], reference: Float[Array, " R"] | None = None, name: str = "x"
) -> Figure:
    """A function of one input, and its reference."""
    figure = new_figure(2.6, 4.8)
    _profile(figure.subplots(), x, solution, reference, name)
    return figure


def _profile(axis: Axes, x: Array, solution: Array, reference: Array | None, name: str) -> None:
    if reference is not None:
        axis.plot(x, reference, color="#808080", lw=3.5, label="reference")
    axis.plot(x, solution, color=COLOURS[0], label="network")
    axis.set(xlabel=name, ylabel="u")
    axis.legend(loc="upper right")


def save_animation(
    path: str | Path,
    axes: Sequence[Float[Array, " R"]],
    time: Float[Array, " T"],
    solution: Float[Array, "*space T"],
    reference: Float[Array, "*space T"] | None = None,
    frames: int = 40,
) -> None:
    """An animated GIF over the last axis, time: a curve for one input of space, a map for two."""
    low, high = float(np.nanmin(solution)), float(np.nanmax(solution))
    margin = 0.05 * (high - low or 1.0)
    chosen = np.unique(np.linspace(0, len(time) - 1, frames).round().astype(int))
    with matplotlib.rc_context({**STYLE, "savefig.dpi": 90}):
        figure = Figure(figsize=(4.8, 3.0), layout="constrained")
        axis = figure.subplots()

        def draw(j: int) -> list[Any]:
            axis.clear()
            axis.set_title(f"t = {time[j]:.3f}")
            if len(axes) == 1:
                _profile(axis, axes[0], solution[..., j], None if reference is None else reference[..., j], "x")
                axis.set_ylim(low - margin, high + margin)
            else:
                axis.pcolormesh(*axes, solution[..., j].T, vmin=low, vmax=high, shading="nearest")
                axis.set(xlabel="x", ylabel="y")
                axis.set_aspect("equal")
                axis.grid(False)
            return []

        FuncAnimation(figure, draw, frames=chosen.tolist()).save(str(path), writer=PillowWriter(fps=12))


@styled
def kernel_figure(initial: Float[Array, " k"], final: Float[Array, " k"], reshaped: Float[Array, " k"]) -> Figure:
    """Eigenvalues of the residuals' kernel K/n before training and at its end, and g(lambda) there under the map used.

    g is scaled to the largest eigenvalue: S is defined up to a factor, which the step size takes.
    """
    figure = new_figure(3.2, 4.8)
    axis = figure.subplots()
    modes = np.arange(1, len(initial) + 1)
    scaled = np.asarray(reshaped, float) * float(np.max(final) / np.max(reshaped))
    for values, name, colour, style in (
        (initial, "λ before training", "#808080", "-"),
        (final, "λ at the end", COLOURS[0], "-"),
        (scaled, "g(λ) at the end, after the map", COLOURS[1], "--"),
    ):
        axis.plot(modes, _positive(values), style, color=colour, label=name)
    top = float(max(np.max(initial), np.max(final)))
    axis.set(xscale="log", yscale="log", xlabel="mode number", ylabel="eigenvalue of K/n", ylim=(1e-18 * top, 10 * top))
    axis.legend(loc="lower left")
    return figure


def _positive(values: Any) -> Array:
    values = np.asarray(values, float)
    return np.where(values > 0, values, np.nan)
