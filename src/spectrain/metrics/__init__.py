"""Measures of what was fitted, and of the residual along the modes."""

from spectrain.metrics.band_energy import BandEnergy
from spectrain.metrics.base import FieldMetrics, Quality
from spectrain.metrics.image import ImageMetrics

__all__ = ["BandEnergy", "FieldMetrics", "ImageMetrics", "Quality"]
