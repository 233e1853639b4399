"""spectrain: train wide networks with a chosen kernel spectrum.

The mathematics needs torch alone; `spectrain.lightning` is imported when it is first used.
"""

import importlib
from importlib.metadata import version
from typing import Any

from spectrain import spectral_maps
from spectrain.errors import InputError, SpectrainWarning
from spectrain.kernels import empirical_ntk
from spectrain.preconditioners import SamplePreconditioner, apply_sample, choose_landmarks
from spectrain.spectrum import Spectrum

__version__ = version("spectrain")

__all__ = [
    "InputError",
    "SamplePreconditioner",
    "SpectrainWarning",
    "Spectrum",
    "apply_sample",
    "choose_landmarks",
    "empirical_ntk",
    "spectral_maps",
]


def __getattr__(name: str) -> Any:
    if name in ("lightning", "models", "data", "plots", "metrics"):
        return importlib.import_module(f"spectrain.{name}")
    raise AttributeError(f"module 'spectrain' has no attribute {name!r}")
