"""Measures of what was fitted, and of the residual along the modes."""

from spectrain.metrics.band_energy import BandEnergy
from spectrain.metrics.base import FieldMetrics, Quality
from spectrain.metrics.image import ImageMetrics
from spectrain.metrics.rows import ClassMetrics, RegressionMetrics
from spectrain.metrics.signal import SignalMetrics

__all__ = [
    "BandEnergy",
    "ClassMetrics",
    "FieldMetrics",
    "ImageMetrics",
    "Quality",
    "RegressionMetrics",
    "SignalMetrics",
]
