"""Figures of a run, from plain arrays, with the numbers behind them."""

from spectrain.plots.bias import bias_figure, ring_names, save_bias_animation
from spectrain.plots.figures import (
    band_energy_figure,
    band_names,
    psnr_figure,
    quality_figure,
    reconstruction_figure,
    spectrum_figure,
    trained_figure,
)
from spectrain.plots.fits import frequencies_figure, parts_figure, signal_figure
from spectrain.plots.frames import frames_figure
from spectrain.plots.method_map import gain_map_figure, initialisation_figure
from spectrain.plots.physics import convergence_figure, kernel_figure, map_figure, profile_figure, save_animation
from spectrain.plots.race import pictures_figure, race_figure
from spectrain.plots.runs import spectra_figure
from spectrain.plots.style import load_arrays, save_figure, svg_text
from spectrain.plots.theory import (
    batch_size_figure,
    decay_figure,
    learning_steps_figure,
    maps_figure,
    prediction_figure,
    rate_figure,
    strength_figure,
)

__all__ = [
    "band_energy_figure",
    "band_names",
    "batch_size_figure",
    "bias_figure",
    "convergence_figure",
    "decay_figure",
    "frames_figure",
    "frequencies_figure",
    "gain_map_figure",
    "initialisation_figure",
    "kernel_figure",
    "learning_steps_figure",
    "load_arrays",
    "map_figure",
    "maps_figure",
    "parts_figure",
    "pictures_figure",
    "prediction_figure",
    "profile_figure",
    "psnr_figure",
    "quality_figure",
    "race_figure",
    "rate_figure",
    "reconstruction_figure",
    "ring_names",
    "save_animation",
    "save_bias_animation",
    "save_figure",
    "signal_figure",
    "spectra_figure",
    "spectrum_figure",
    "strength_figure",
    "svg_text",
    "trained_figure",
]
