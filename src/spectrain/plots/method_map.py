"""Figures of studies that compare trained networks: gains against the spectrum's steepness, initialisations.

Shapes: N pairs of network and optimizer, M initialisations.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spectrain.plots.style import COLOURS, new_figure, styled

Array = np.ndarray
MARKERS = "osD^vP*X"


@styled
def gain_map_figure(
    network: Sequence[str] | Array,
    optimizer: Sequence[str] | Array,
    ratio: Float[Array, " N"],
    gain: Float[Array, " N"],
    auto_gain: Float[Array, " N"],
    chosen: Sequence[str] | Array,
    decay: Float[Array, " N"],
    thresholds: Float[Array, " 2"],
) -> Figure:
    """Gain in dB at equal CPU time against lambda_1/lambda_64, and against the decay of the eigenvalues.

    Networks are colours, optimizers are markers; filled: S was on at the end with ``preconditioner=auto``. A thin line
    leads to the gain with auto. Grey in the left panel: where one spectrum does not tell, and auto makes a trial.
    """
    networks = list(dict.fromkeys(map(str, network)))
    optimizers = list(dict.fromkeys(map(str, optimizer)))
    figure = new_figure(3.6)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, across in zip(axes, (ratio, decay), strict=True):
        for i, x in enumerate(np.asarray(across, float)):
            colour = COLOURS[networks.index(str(network[i])) % len(COLOURS)]
            marker = MARKERS[optimizers.index(str(optimizer[i])) % len(MARKERS)]
            face = "white" if str(chosen[i]) == "none" else colour
            axis.plot([x, x], [gain[i], auto_gain[i]], color=colour, lw=0.8)
            axis.plot(x, gain[i], marker=marker, ms=7, color=colour, markerfacecolor=face, lw=0)
        axis.axhline(0, color="black", lw=0.8)
    axes[0].axvspan(*map(float, thresholds), color="#909090", alpha=0.25, lw=0)
    axes[0].set(xscale="log", xlabel=r"$\lambda_1 / \lambda_{64}$ after the warm-up", ylabel="gain, dB, at equal time")
    axes[1].set_xlabel(r"exponent of the decay, $\lambda_i \sim i^{-p}$")
    keys = [Line2D([], [], color=COLOURS[i % len(COLOURS)], lw=4, label=name) for i, name in enumerate(networks)]
    keys += [
        Line2D([], [], color="black", marker=MARKERS[i % len(MARKERS)], lw=0, label=name)
        for i, name in enumerate(optimizers)
    ]
    keys.append(Line2D([], [], color="black", marker="o", markerfacecolor="white", lw=0, label="auto: off"))
    figure.legend(handles=keys, loc="outside lower center", ncols=6)
    return figure


@styled
def initialisation_figure(name: Sequence[str] | Array, ratio: Float[Array, " M"], psnr: Float[Array, "2 M"]) -> Figure:
    """Steepness at the start and PSNR in equal CPU time of each initialisation, without (blue) and with S (orange)."""
    rows = np.arange(len(name))[::-1]
    figure = new_figure(1.2 + 0.32 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(rows, np.asarray(ratio, float), height=0.6, color="#909090")
    left.set(xscale="log", xlabel=r"$\lambda_1 / \lambda_{64}$ before the first step")
    left.set_yticks(rows, [str(label) for label in name])
    for j, label in enumerate(("without S", "with S")):
        right.barh(rows + 0.18 - 0.36 * j, np.asarray(psnr, float)[j], height=0.34, color=COLOURS[j], label=label)
    bottom = float(np.nanmin(psnr))
    right.set(xlabel="PSNR, dB, in equal CPU time", xlim=(bottom - 0.2 * abs(bottom) - 1, float(np.nanmax(psnr)) + 1))
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
