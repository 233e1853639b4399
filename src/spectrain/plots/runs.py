"""The spectra of several runs, side by side.

Shapes: k modes, different for every run.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from spectrain.plots.style import line_style, new_figure, styled

Array = np.ndarray


@styled
def spectra_figure(
    names: Sequence[str],
    eigenvalues: Sequence[Float[Array, " k"]],
    mapped: Sequence[Float[Array, " k"]],
    energies: Sequence[Float[Array, " k"]],
) -> Figure:
    """Left: eigenvalues of K/n (thin) and after the map (thick), against the mode number. Right: the energy
    |v^T (f - y)|^2 / n that the end of the run left in each mode. One colour for a run; nan is a gap."""
    figure = new_figure(3.2)
    axes = figure.subplots(1, 2)
    for number, (name, before, after, energy) in enumerate(zip(names, eigenvalues, mapped, energies, strict=True)):
        modes, style = np.arange(1, len(before) + 1), line_style(number)
        axes[0].plot(modes, _positive(before), **style, lw=0.8, alpha=0.7)
        axes[0].plot(modes, _positive(after), **style, lw=1.8, label=name)
        axes[1].plot(modes, _positive(energy), **style, lw=1.0)
    axes[0].set(title="λ (thin) and g(λ) (thick)", ylabel="eigenvalue of K/n")
    axes[1].set(title="Energy left in the residual", ylabel="energy per point")
    for axis in axes:
        axis.set(xscale="log", yscale="log", xlabel="mode number")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _positive(values: Array) -> Array:
    """Numbers that a logarithmic axis can show."""
    values = np.asarray(values, float)
    return np.where(values > 0, values, np.nan)
