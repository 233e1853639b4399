"""Figures of a run, from plain arrays, with the numbers behind them."""

from spectrain.plots.figures import (
    band_energy_figure,
    band_names,
    psnr_figure,
    reconstruction_figure,
    spectrum_figure,
)
from spectrain.plots.style import load_arrays, save_figure
from spectrain.plots.theory import decay_figure, maps_figure, rate_figure

__all__ = [
    "band_energy_figure",
    "band_names",
    "decay_figure",
    "load_arrays",
    "maps_figure",
    "psnr_figure",
    "rate_figure",
    "reconstruction_figure",
    "save_figure",
    "spectrum_figure",
]
