"""Networks: MLP, Fourier features, SIREN, FINER, Gaussian activations; in NTK or standard parameterisation."""

from spectrain.models.layers import Finer, FourierFeatures, Gaussian, NTKLinear, PeriodicFeatures, Sine
from spectrain.models.networks import center_output, finer, fourier, gauss, mlp, periodic, siren

__all__ = [
    "Finer",
    "FourierFeatures",
    "Gaussian",
    "NTKLinear",
    "PeriodicFeatures",
    "Sine",
    "center_output",
    "finer",
    "fourier",
    "gauss",
    "mlp",
    "periodic",
    "siren",
]
