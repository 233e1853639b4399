"""Networks: MLP, Fourier features, SIREN, FINER, Gaussian activations; in NTK or standard parameterisation."""

from spectrain.models.layers import Finer, FourierFeatures, Gaussian, NTKLinear, Sine
from spectrain.models.networks import center_output, finer, fourier, gauss, mlp, siren

__all__ = [
    "Finer",
    "FourierFeatures",
    "Gaussian",
    "NTKLinear",
    "Sine",
    "center_output",
    "finer",
    "fourier",
    "gauss",
    "mlp",
    "siren",
]
