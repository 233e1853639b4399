"""Spectra of K/n: eigenvalues with their proof, and what they say."""

from spectrain.spectrum.spectrum import Spectrum

__all__ = ["Spectrum"]
