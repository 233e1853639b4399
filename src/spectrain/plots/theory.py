"""The figures of the theory: what a map does to a spectrum, how modes decay, how fast a limit is reached.

Shapes: k modes, M maps, T steps, F modes or frequencies shown, S series of N points.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from spectrain.plots.style import COLOURS, line_style, new_figure, styled

Array = np.ndarray


@styled
def maps_figure(eigenvalues: Float[Array, " k"], ratio: Float[Array, "M k"], name: Sequence[str] | Array) -> Figure:
    """g(lambda_i) = ratio_i lambda_i against the mode number i, each map scaled to g_max = 1; lambda itself in grey.

    Scaled, because descent takes steps of 1/g_max: a mode's height is then the share of it that one step learns.
    """
    values = np.asarray(eigenvalues, float)
    modes = np.arange(1, len(values) + 1)
    figure = new_figure(3.6)
    axis = figure.subplots()
    axis.plot(modes, values / values[0], color="#909090", lw=4, alpha=0.5, label="identity")
    for m, label in enumerate(name):
        g = values * np.asarray(ratio, float)[m]
        axis.plot(modes, g / g.max(), label=str(label), **line_style(m))
    bottom = values[-1] / values[0]
    axis.set(xscale="log", yscale="log", xlabel="mode number", ylabel="g / largest g", ylim=(bottom / 10, 2))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center")
    return figure


@styled
def decay_figure(
    step: Int[Array, " T"],
    predicted: Float[Array, "P T F"],
    measured: Float[Array, "P T F"],
    name: Sequence[str] | Array,
    title: Sequence[str] | Array,
) -> Figure:
    """What is left in each of F modes or frequencies over the steps: theory as lines, training as dots; P panels."""
    steps = np.asarray(step)
    across = len(title) if len(title) % 2 else 2
    down = len(title) // across
    figure = new_figure(2.9 * down)
    axes = figure.subplots(down, across, sharey=True, squeeze=False).flatten()
    for axis, lines, dots, heading in zip(axes, np.asarray(predicted), np.asarray(measured), title, strict=True):
        for j, label in enumerate(name):
            axis.plot(steps, lines[:, j], color=COLOURS[j], label=str(label))
            axis.plot(steps, dots[:, j], color=COLOURS[j], lw=0, marker="o", ms=3)
        axis.set(xscale="symlog", yscale="log", xlabel="steps", title=str(heading), ylim=(1e-4, 2))
    for axis in axes[::across]:
        axis.set_ylabel("share of the energy left")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure


@styled
def prediction_figure(
    predicted: Float[Array, " N"],
    measured: Float[Array, " N"],
    kind: Sequence[str] | Array,
    chosen: Float[Array, "S 2"],
) -> Figure:
    """Measured against predicted errors of N candidates, a colour for each kind of data; the S chosen ones as rings."""
    figure = new_figure(3.6, 4.8)
    axis = figure.subplots()
    kinds = np.asarray(kind)
    for j, name in enumerate(dict.fromkeys(kinds.tolist())):
        x, y = (np.asarray(values, float)[kinds == name] for values in (predicted, measured))
        axis.plot(x, y, color=COLOURS[j % 7], lw=0, marker=".", ms=4, alpha=0.6, label=str(name))
    x, y = np.asarray(chosen, float).T
    axis.plot(x, y, lw=0, marker="o", ms=6, mfc="none", mec="black", label="suggested")
    ends = [min(np.min(predicted), np.min(measured)), max(np.max(predicted), np.max(measured))]
    axis.plot(ends, ends, color="#808080", lw=1, ls=":")
    axis.set(xscale="log", yscale="log", xlabel="predicted error", ylabel="measured error")
    axis.legend()
    return figure


@styled
def rate_figure(
    size: Int[Array, " N"], error: Float[Array, "S N"], name: Sequence[str] | Array, xlabel: str, ylabel: str
) -> Figure:
    """Errors against a size, both logarithmic; the legend has the least-squares exponent p of error ~ size^p."""
    sizes = np.asarray(size, float)
    figure = new_figure(3.2, 4.8)
    axis = figure.subplots()
    for j, (label, values) in enumerate(zip(name, np.asarray(error, float), strict=True)):
        exponent = np.polyfit(np.log(sizes), np.log(values), 1)[0]
        axis.plot(sizes, values, color=COLOURS[j % 7], marker="o", ms=4, label=f"{label}: exponent {exponent:.2f}")
    axis.set(xscale="log", yscale="log", xlabel=str(xlabel), ylabel=str(ylabel))
    axis.set_xticks(sizes, [f"{s:g}" for s in sizes])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.legend()
    return figure


@styled
def learning_steps_figure(
    number: Float[Array, "P K"],
    predicted: Float[Array, "P M K"],
    measured: Float[Array, "P M K"],
    method: Sequence[str] | Array,
    title: Sequence[str] | Array,
    xlabel: Sequence[str] | Array,
    exponent: Sequence[int] | Array,
) -> Figure:
    """Steps to learn frequency (or degree) `number` by M methods: theory as lines, training as dots; P panels.

    The dotted line grows like number^exponent, through the last prediction for the first method. nan: not there.
    """
    figure = new_figure(3.1)
    axes = figure.subplots(1, len(title), sharey=True, squeeze=False)[0]
    for p, axis in enumerate(axes):
        x = np.asarray(number, float)[p]
        last = np.flatnonzero(np.isfinite(x))[-1]
        slope = float(np.asarray(predicted)[p, 0, last]) * (x / x[last]) ** int(exponent[p])
        axis.plot(x, slope, color="#808080", lw=1, ls=":", label=None)
        axis.annotate(
            f"∝ {str(xlabel[p]).split()[-1]}{'⁰¹²³⁴'[int(exponent[p])]}",
            (x[last // 3], slope[last // 3]),
            xytext=(6, -10),
            textcoords="offset points",
            color="#606060",
        )
        for m, label in enumerate(method):
            axis.plot(x, np.asarray(predicted)[p, m], color=COLOURS[m], label=f"{label}: theory")
            axis.plot(
                x, np.asarray(measured)[p, m], color=COLOURS[m], lw=0, marker="o", ms=4.5, label=f"{label}: network"
            )
        axis.set(xscale="log", yscale="log", xlabel=str(xlabel[p]), title=str(title[p]))
        ticks = [v for v in (1, 2, 3, 4, 6, 8, 12, 16, 24) if v <= x[last]]
        axis.set_xticks(ticks, [str(v) for v in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
    axes[0].set_ylabel("steps until it is learned")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@styled
def strength_figure(
    strength: Float[Array, " A"],
    network: Float[Array, "R K N A"],
    theory: Float[Array, "R K N A"],
    noise: Float[Array, " N"],
    row: Sequence[str] | Array,
    column: Sequence[str] | Array,
) -> Figure:
    """Test error against the strength of a map for each noise: theory as lines, networks as dots; R x K panels."""
    figure = new_figure(2.1 * len(row) + 0.6)
    axes = figure.subplots(len(row), len(column), sharex=True, sharey=True, squeeze=False)
    for r, line in enumerate(axes):
        for k, axis in enumerate(line):
            for j, level in enumerate(np.asarray(noise, float)):
                axis.plot(strength, np.asarray(theory)[r, k, j], color=COLOURS[j], label=f"noise {level:g}: theory")
                axis.plot(
                    strength,
                    np.asarray(network)[r, k, j],
                    color=COLOURS[j],
                    lw=0,
                    marker="o",
                    ms=4.5,
                    label=f"noise {level:g}: network",
                )
            axis.set(yscale="log", title=f"{column[k]}, {row[r]}")
            axis.axvline(0, color="#808080", lw=0.8, ls=":")
    for axis in axes[-1]:
        axis.set_xlabel("strength α of the map (0: plain, 1: flat)")
    for line in axes:
        line[0].set_ylabel("mean squared test error")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(noise))
    return figure


@styled
def batch_size_figure(
    batch_size: Int[Array, " B"],
    predicted: Float[Array, "2 B"],
    measured: Float[Array, "M B"],
    critical: Float[Array, " 2"],
    method: Sequence[str] | Array,
) -> Figure:
    """Steps to a goal (left) and the gain over the first method (right) against the batch size.

    Theory, as lines, is for plain descent and for either side's preconditioner; the vertical lines are where it says
    that larger batches stop paying. Networks are dots; nan: never reached.
    """
    sizes, steps = np.asarray(batch_size), np.asarray(measured, float)
    lines = np.asarray(predicted, float)
    figure = new_figure(3.1)
    axes = figure.subplots(1, 2)
    for m, label in enumerate(("theory, plain", "theory, preconditioned")):
        axes[0].plot(sizes, lines[m], color=COLOURS[m], label=label)
        for axis in axes:
            axis.axvline(float(critical[m]), color=COLOURS[m], lw=0.9, ls=":")
    axes[1].plot(sizes, lines[0] / lines[1], color=COLOURS[1])
    for m, label in enumerate(method):
        dots = {"color": COLOURS[m], "lw": 0, "marker": "os^"[m % 3], "ms": 4.5}
        axes[0].plot(sizes, steps[m], label=str(label), **dots)
        if m:
            axes[1].plot(sizes, steps[0] / steps[m], **dots)
    axes[0].set(ylabel="steps until it is learned", title="Dotted: critical batch size")
    axes[1].set(ylabel="times fewer steps than plain", title="Gain")
    for axis in axes:
        axis.set(xscale="log", yscale="log", xlabel="batch size")
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.xaxis.set_minor_locator(NullLocator())
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
