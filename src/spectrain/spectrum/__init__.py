"""Spectra of K/n: eigenvalues with their proof, and what they say."""

from spectrain.spectrum.lanczos import spectral_density
from spectrain.spectrum.operators import Operator
from spectrain.spectrum.spectrum import Spectrum, dense_pays

__all__ = ["Operator", "Spectrum", "dense_pays", "spectral_density"]
