"""Networks: MLP, Fourier features, SIREN, in NTK or standard parameterisation."""

from spectrain.models.layers import FourierFeatures, NTKLinear, PeriodicFeatures, Sine
from spectrain.models.networks import center_output, fourier, mlp, periodic, siren

__all__ = [
    "FourierFeatures",
    "NTKLinear",
    "PeriodicFeatures",
    "Sine",
    "center_output",
    "fourier",
    "mlp",
    "periodic",
    "siren",
]
