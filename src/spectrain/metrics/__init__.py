"""Measures of a reconstruction."""

from spectrain.metrics.image import ImageMetrics

__all__ = ["ImageMetrics"]
