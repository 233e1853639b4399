"""Measures of a reconstruction, and of the residual along the modes."""

from spectrain.metrics.band_energy import BandEnergy
from spectrain.metrics.image import ImageMetrics

__all__ = ["BandEnergy", "ImageMetrics"]
