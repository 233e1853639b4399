"""Figures of a run, from plain arrays, with the numbers behind them."""

from spectrain.plots.figures import (
    band_energy_figure,
    band_names,
    psnr_figure,
    reconstruction_figure,
    spectrum_figure,
)
from spectrain.plots.race import pictures_figure, race_figure
from spectrain.plots.style import load_arrays, save_figure, svg_text

__all__ = [
    "band_energy_figure",
    "band_names",
    "load_arrays",
    "pictures_figure",
    "psnr_figure",
    "race_figure",
    "reconstruction_figure",
    "save_figure",
    "spectrum_figure",
    "svg_text",
]
