"""Networks: MLP, Fourier features, SIREN, in NTK or standard parameterisation."""

from spectrain.models.layers import FourierFeatures, NTKLinear, Sine
from spectrain.models.networks import center_output, fourier, mlp, siren

__all__ = ["FourierFeatures", "NTKLinear", "Sine", "center_output", "fourier", "mlp", "siren"]
