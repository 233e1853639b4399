"""spectrain: train wide networks with a chosen kernel spectrum.

The mathematics needs torch alone. Names that bring scikit-learn, Lightning or matplotlib are imported when first used.
"""

import importlib
from importlib.metadata import version
from typing import Any

from spectrain import spectral_maps
from spectrain.errors import InputError, SpectrainWarning
from spectrain.kernels import NTKOperator, empirical_ntk, infinite_width_ntk
from spectrain.preconditioners import SamplePreconditioner, apply_sample, choose_landmarks
from spectrain.spectrum import Spectrum

__version__ = version("spectrain")

__all__ = [
    "InputError",
    "KernelRegression",
    "ModifiedSpectrumKernel",
    "NTKOperator",
    "SamplePreconditioner",
    "SpectrainWarning",
    "Spectrum",
    "apply_sample",
    "choose_landmarks",
    "empirical_ntk",
    "infinite_width_ntk",
    "spectral_maps",
    "suggest_spectral_map",
]

_LATER = {
    "KernelRegression": "regression",
    "ModifiedSpectrumKernel": "regression",
    "suggest_spectral_map": "selection",
}
_SUBPACKAGES = ("data", "lightning", "metrics", "models", "optim", "pde", "plots", "regression", "selection")


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"spectrain.{_LATER[name]}"), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"spectrain.{name}")
    raise AttributeError(f"module 'spectrain' has no attribute {name!r}")
