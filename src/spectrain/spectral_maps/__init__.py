"""Spectral maps: which spectrum the modified kernel has, as the ratio g(lambda)/lambda.

Letters: k modes, c = lambda_{rank+1} the cut. A map is called with the eigenvalues of K/n [k], descending, and returns
the ratio [k] > 0. `rank=r` cuts at lambda_{r+1}: the r modes above it are the head. `rank=None` cuts at the smallest
eigenvalue given. Every ratio is a function of lambda (never of the index alone: equal eigenvalues get equal ratios, so
S does not depend on the basis of an eigenspace), and most tend to 1 at the cut, where the untouched modes begin.

One more map is one more small class in a file of its own; configurations name it by its import path.
"""

from spectrain.spectral_maps.base import SpectralMap, checked_ratio, cut
from spectrain.spectral_maps.compose import chain, clip, custom
from spectrain.spectral_maps.head import flatten, identity, power, raise_head, ridge
from spectrain.spectral_maps.scales import bandpass, heat, sobolev

__all__ = [
    "SpectralMap",
    "bandpass",
    "chain",
    "checked_ratio",
    "clip",
    "custom",
    "cut",
    "flatten",
    "heat",
    "identity",
    "power",
    "raise_head",
    "ridge",
    "sobolev",
]
