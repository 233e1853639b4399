"""spectrain: train wide networks with a chosen kernel spectrum.

The mathematics needs torch alone. Names that bring scikit-learn, Lightning or matplotlib are imported when first used.
"""

import importlib
from importlib.metadata import version
from typing import Any

from spectrain import spectral_maps
from spectrain.errors import InputError, SpectrainWarning
from spectrain.kernels import NTKOperator, empirical_ntk, infinite_width_ntk
from spectrain.preconditioners import (
    AutoPreconditioner,
    BatchPreconditioner,
    GridPreconditioner,
    Guard,
    ParameterPreconditioner,
    SamplePreconditioner,
    apply_parameter,
    apply_sample,
    automatic_rate,
    choose_landmarks,
    largest_preconditioned_eigenvalue,
)
from spectrain.spectrum import Spectrum

__version__ = version("spectrain")

__all__ = [
    "AutoPreconditioner",
    "BatchPreconditioner",
    "GridPreconditioner",
    "Guard",
    "InputError",
    "KernelRegression",
    "ModifiedSpectrumKernel",
    "ModifiedSpectrumOptimizer",
    "NTKOperator",
    "ParameterPreconditioner",
    "SamplePreconditioner",
    "SpectrainWarning",
    "Spectrum",
    "apply_parameter",
    "apply_sample",
    "automatic_rate",
    "choose_landmarks",
    "empirical_ntk",
    "infinite_width_ntk",
    "largest_preconditioned_eigenvalue",
    "spectral_maps",
    "suggest_spectral_map",
]

_LATER = {
    "KernelRegression": "regression",
    "ModifiedSpectrumKernel": "regression",
    "ModifiedSpectrumOptimizer": "optim",
    "suggest_spectral_map": "selection",
}
_SUBPACKAGES = ("data", "lightning", "metrics", "models", "optim", "pde", "plots", "regression", "selection")


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"spectrain.{_LATER[name]}"), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"spectrain.{name}")
    raise AttributeError(f"module 'spectrain' has no attribute {name!r}")
