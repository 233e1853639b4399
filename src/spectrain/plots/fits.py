"""Figures of fits to signals and tables, each from plain arrays.

Shapes: n samples, C channels, F frequencies, B bands, N logged points (all runs together).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from spectrain.plots.figures import shades, step_axis
from spectrain.plots.style import COLOURS, UNRESOLVED, new_figure, styled

Array = np.ndarray


@styled
def signal_figure(
    x: Float[Array, " n"],
    target: Float[Array, "n C"],
    fit: Float[Array, "n C"],
    signal_energy: Float[Array, " F"],
    residual_energy: Float[Array, " F"],
) -> Figure:
    """The signal with the fit, the residual below it, and the amplitudes of both per frequency (channels together)."""
    figure = new_figure(4.6)
    top, below, spectrum = figure.subplot_mosaic([["top", "top"], ["below", "spectrum"]]).values()
    for c in range(target.shape[1]):
        top.plot(x, target[:, c], color=UNRESOLVED, lw=2.4, label="signal" if c == 0 else None)
        top.plot(x, fit[:, c], color=COLOURS[c % 2], lw=0.9, label="fit" if c == 0 else None)
        below.plot(x, fit[:, c] - target[:, c], color=COLOURS[c % 2], lw=0.9)
    top.set(xlim=(-1, 1))
    figure.legend(*top.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    below.set(title="Residual", xlabel="x", xlim=(-1, 1))
    kappa = np.arange(len(signal_energy))
    for energy, name, colour, width in (
        (signal_energy, "signal", UNRESOLVED, 2.4),
        (residual_energy, "residual", COLOURS[0], 1.0),
    ):
        spectrum.plot(kappa[1:], np.sqrt(np.maximum(energy[1:], 1e-16)), color=colour, lw=width, label=name)
    spectrum.set(xscale="log", yscale="log", xlabel="periods over the signal", title="Amplitude per frequency")
    spectrum.set_ylim(bottom=1e-3 * float(np.sqrt(signal_energy.max())))
    spectrum.legend(loc="upper right")
    return figure


@styled
def frequencies_figure(
    step: Int[Array, " N"],
    error: Float[Array, "N B"],
    bands: Int[Array, "B 2"],
    run: Sequence[str] | Array | None = None,
) -> Figure:
    """The residual's amplitude over the signal's in each band of frequencies, against steps: one panel for each run.

    Shades go from dark (low frequencies) to light.
    """
    labels = np.full(len(step), "") if run is None else np.asarray(run, str)
    names = list(dict.fromkeys(labels.tolist()))
    figure = new_figure(3.2)
    axes = np.atleast_1d(figure.subplots(1, len(names), sharey=True))
    colours = shades(len(bands))
    for axis, name in zip(axes, names, strict=True):
        mine = labels == name
        for b, (first, last) in enumerate(np.asarray(bands).tolist()):
            label = f"{first}" if first == last else f"{first}–{last}"
            axis.plot(np.asarray(step)[mine], np.maximum(error[mine, b], 1e-8), color=colours[b], label=label)
        step_axis(axis, np.asarray(step)[mine])
        axis.set(yscale="log", title=name)
    axes[0].set_ylabel("error, relative to the band")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(8, len(bands)), title="periods"
    )
    return figure


@styled
def parts_figure(
    step: Int[Array, " N"],
    seconds: Float[Array, " N"],
    run: Sequence[str] | Array | None = None,
    label: str = "",
    reference: float | None = None,
    **parts: Float[Array, " N"],
) -> Figure:
    """A measure on `train`, `validation` and `test` rows against steps (logarithmic) and seconds, one colour a run.

    `reference`: what another method reaches on the test rows.
    """
    labels = np.full(len(step), "") if run is None else np.asarray(run, str)
    figure = new_figure(3.2)
    axes = figure.subplots(1, 2, sharey=True)
    dashes: dict[str, Any] = {"train": ":", "validation": "-", "test": "--"}
    for number, name in enumerate(dict.fromkeys(labels.tolist())):
        mine = labels == name
        for part, dash in dashes.items():
            if part not in parts:
                continue
            for axis, x in zip(axes, (step, seconds), strict=True):
                axis.plot(
                    np.asarray(x)[mine],
                    np.asarray(parts[part])[mine],
                    dash,
                    color=COLOURS[number],
                    label=", ".join(filter(None, (name, part))),
                )
    if reference is not None:
        for axis in axes:
            axis.axhline(float(reference), color=UNRESOLVED, lw=1, label="kernel regression, test", zorder=0)
    step_axis(axes[0], np.asarray(step))
    axes[0].set_ylabel(str(label))
    axes[1].set(xlabel="time (s), refreshes included")
    axes[1].set_xlim(left=0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
