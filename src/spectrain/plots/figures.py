"""The figures of a run, each a function from plain arrays to a matplotlib Figure.

Shapes: H rows, W columns, C channels, k modes, N logged points (all runs together), T logged steps, B bands.
The arguments are exactly what `save_figure` stores, so `draw(**load_arrays(path))` draws a figure again.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spectrain.plots.style import COLOURS, UNRESOLVED, WIDTH, new_figure, styled

Array = np.ndarray


@styled
def reconstruction_figure(target: Float[Array, "H W C"], reconstruction: Float[Array, "H W C"]) -> Figure:
    """Target | reconstruction with its PSNR | error |f - y|, values in [-1, 1], C = 1 or 3.

    psnr = 10 log10(4 / mean (f - y)^2) dB, f clamped to [-1, 1]. The error of a colour image is the root mean square
    over its channels. The colour scale ends at the 99.5th percentile, so that one bad pixel does not hide the rest.
    """
    target = np.asarray(target, float)
    shown = np.clip(np.asarray(reconstruction, float), -1, 1)
    error = np.sqrt(np.mean((shown - target) ** 2, axis=2))
    top = float(np.nanpercentile(error, 99.5)) if np.isfinite(error).any() else 1.0
    height, width = error.shape
    figure = new_figure(float(np.clip(0.3 + (WIDTH - 0.9) / 3 * height / width, 1.5, 9.0)))
    axes = figure.subplots(1, 3)
    last = "Error" if target.shape[2] == 1 else "Error, RMS over channels"
    titles = ("Target", f"Reconstruction, {decibels(np.mean((shown - target) ** 2))}", last)
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    for axis, image in zip(axes, (target, shown), strict=False):
        grey = {"cmap": "gray", "vmin": 0, "vmax": 1} if image.shape[2] == 1 else {}
        axis.imshow(np.squeeze((image + 1) / 2, axis=2) if grey else (image + 1) / 2, interpolation="nearest", **grey)
    drawn = axes[2].imshow(error, cmap="cividis", vmin=0, vmax=top or 1.0, interpolation="nearest")
    beyond = "max" if np.nanmax(error, initial=0) > top else "neither"
    bar = figure.colorbar(
        drawn, ax=axes[2], fraction=0.046 * height / width, pad=0.03, extend=beyond, label="|f − y|, full range 2"
    )
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(4)
    bar.update_ticks()
    return figure


def decibels(mse: Any) -> str:
    """10 log10(4 / mse) as text; values span [-1, 1], so the largest square is 4."""
    return "exact" if mse == 0 else f"{10 * np.log10(4 / mse):.2f} dB"


@styled
def spectrum_figure(
    eigenvalues: Float[Array, " k"],
    ratio: Float[Array, " k"],
    resolved: int | None = None,
    noise_floor: float | None = None,
) -> Figure:
    """Eigenvalues lambda_i of K/n and, after the map, g(lambda_i) = ratio_i lambda_i, against the mode number i.

    The first `resolved` modes (default: all) count; the others lie below `noise_floor` and are grey. Condition numbers
    are largest over smallest resolved value.
    """
    before = np.asarray(eigenvalues, float)
    after = before * np.asarray(ratio, float)
    k = len(before)
    count = k if resolved is None else int(resolved)
    modes = np.arange(1, k + 1)
    figure = new_figure(3.6, 4.8)
    axis = figure.subplots()
    dot = "o" if k <= 128 else ""
    # The line before is the wider one: where the map changes nothing, both stay visible.
    for values, name, colour, width in (
        (before, "before: λ", COLOURS[0], 3.0),
        (after, "after: g(λ)", COLOURS[1], 1.2),
    ):
        kept = values[:count]
        condition = f", condition number {_short(kept.max() / kept.min())}" if count else ""
        axis.plot(modes[:count], kept, color=colour, label=name + condition, lw=width, marker=dot, ms=width + 1)
    if count < k:
        axis.plot(
            modes[count:], _positive(before[count:]), color=UNRESOLVED, label="unresolved", lw=0, marker="o", ms=3
        )
    # A floor far below every mode says nothing and would squeeze the curves into the upper half.
    if noise_floor is not None and noise_floor > 0 and (count < k or noise_floor > before.min() / 10):
        axis.axhline(float(noise_floor), color=UNRESOLVED, lw=1, ls="--", label="noise floor", zorder=0)
    axis.set(xscale="log", yscale="log", xlabel="mode number", ylabel="eigenvalue of K/n")
    axis.legend(loc="upper right")  # a falling spectrum leaves this corner free
    return figure


def _short(value: float) -> str:
    """Three digits, no exponent while a reader would not write one."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}" if value < 1e6 else f"{value:.1e}"


def _positive(values: Array) -> Array:
    """Numbers that a logarithmic axis can show; the others become gaps."""
    return np.where(values > 0, values, np.nan)


@styled
def psnr_figure(
    step: Int[Array, " N"],
    seconds: Float[Array, " N"],
    psnr: Float[Array, " N"],
    run: Sequence[str] | Array | None = None,
) -> Figure:
    """PSNR in dB against optimizer steps and against seconds, every refresh included in the seconds.

    One row per logged point; `run` [N] names the run of each (default: one run). Runs keep the order in which they
    first appear, and both panels share their dB axis.
    """
    labels = np.full(len(psnr), "") if run is None else np.asarray(run, str)
    figure = new_figure(2.9)
    axes = figure.subplots(1, 2, sharey=True)
    values = np.asarray(psnr, float)
    for name in dict.fromkeys(labels.tolist()):
        mine = labels == name
        for axis, x in zip(axes, (step, seconds), strict=True):
            axis.plot(np.asarray(x)[mine], values[mine], label=name or None, **_dots(int(mine.sum())))
    axes[0].set(xlabel="optimizer steps", ylabel="PSNR (dB)")
    axes[1].set(xlabel="time (s), refreshes included")
    for axis in axes:
        axis.set_xlim(left=0)
        axis.margins(x=0.02)
    if labels[:1].any():
        axes[0].legend(loc="lower right")
    return figure


def _dots(points: int) -> dict[str, Any]:
    """A few points are shown as points; many would only thicken the line."""
    return {"marker": "o", "markersize": 3} if points <= 30 else {}


@styled
def band_energy_figure(
    step: Int[Array, " T"], energy: Float[Array, "T B"], last_mode: Int[Array, " B1"] | Sequence[int]
) -> Figure:
    """The residual's energy in each band of eigenmodes over the steps: the spectral bias.

    Band b < B - 1 holds the modes after band b - 1 up to number `last_mode[b]`; the last band, B - 1, is what lies
    beyond (so `last_mode` has B - 1 entries). Left: energy as given, |V_b^T (f - y)|^2 / n, so that the bands add up
    to |f - y|^2 / n, C times the MSE. Right: relative to its first value; a band that falls later is learned later.
    """
    steps, values = np.asarray(step), _positive(np.asarray(energy, float))
    names = band_names(last_mode)
    if values.shape != (len(steps), len(names)):
        raise ValueError(f"energy {values.shape} must be [steps, bands] = {(len(steps), len(names))}")
    figure = new_figure(3.2)
    axes = figure.subplots(1, 2)
    # One hue from dark (first modes) to light: the bands have an order, a list of hues would hide it.
    colours = shades(len(names))
    for b, name in enumerate(names):
        for axis, line in zip(axes, (values[:, b], values[:, b] / _first(values[:, b])), strict=True):
            axis.plot(steps, line, color=colours[b], label=name, **_dots(len(steps)))
    for axis in axes:
        step_axis(axis, steps)
    axes[0].set(yscale="log", title="Energy of the residual", ylabel="energy per point (sum: |f − y|² / n)")
    axes[1].set(yscale="log", title="Relative to the start", ylabel="energy / energy at the start")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(names)))
    return figure


def band_names(last_mode: Int[Array, " B1"] | Sequence[int]) -> list[str]:
    """["modes 1–4", "modes 5–16", "beyond 16"] for last_mode [4, 16]."""
    ends = [int(mode) for mode in last_mode]
    starts = [1, *(end + 1 for end in ends[:-1])]
    names = [f"mode {a}" if a == b else f"modes {a}–{b}" for a, b in zip(starts, ends, strict=True)]
    return [*names, f"beyond {ends[-1]}"]


def _first(values: Array) -> float:
    """The first number among gaps (the bands are unknown before the first spectrum)."""
    known = values[np.isfinite(values)]
    return float(known[0]) if len(known) else 1.0


def shades(count: int) -> list[Any]:
    """Colours from dark to light, for curves that have an order."""
    return [matplotlib.colormaps["viridis"](x) for x in np.linspace(0, 0.85, count)]


def step_axis(axis: Axes, steps: Array) -> None:
    """Steps on a logarithmic axis that has room for step 0."""
    # symlog: step 0, where everything starts, has no place on a logarithmic axis
    axis.set_xscale("symlog", linthresh=max(1, steps[steps > 0].min(initial=steps.max())), linscale=0.3)
    axis.set(xlabel="optimizer steps", xlim=(min(0, steps.min()), max(1, steps.max()) * 1.05))
