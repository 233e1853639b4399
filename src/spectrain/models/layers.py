"""Layers of the library's own networks: linear maps in NTK parameterisation, Fourier features, activations.

Shapes: n points, d input dims, F features.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from spectrain.kernels import Tape, register_rule


class NTKLinear(nn.Module):
    """Linear layer in NTK parameterisation: ``h = weight_scale * W a + bias_scale * b``, W and b ~ N(0, 1).

    The scales stand outside the trained parameters, so that the tangent kernel has a limit as the width grows.
    ``weight_scale = gain / sqrt(fan_in)``; ``gain**2`` is the weight variance and ``bias_scale**2`` the bias variance
    of Jacot et al. 2018 (arXiv 1806.07572), with gain sqrt(2) after a ReLU.

    Shapes: weight [out, in], bias [out], input [..., in], output [..., out].
    """

    def __init__(
        self, in_features: int, out_features: int, *, gain: float = 1.0, bias: bool = True, bias_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight_scale = gain / math.sqrt(in_features)
        self.bias_scale = bias_scale
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.randn(out_features)) if bias else None

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        """``weight_scale * W x + bias_scale * b``."""
        # The input is scaled, not the weight: n x in is smaller than out x in for no batch size anyone trains with,
        # but it keeps W a leaf that every kernel rule and every optimizer sees as it is.
        return functional.linear(
            x * self.weight_scale, self.weight, None if self.bias is None else self.bias_scale * self.bias
        )

    def extra_repr(self) -> str:
        """Sizes and scales, for ``print(network)``."""
        return (
            f"{self.in_features}, {self.out_features}, weight_scale={self.weight_scale:.4g}, "
            f"bias_scale={self.bias_scale:.4g}, bias={self.bias is not None}"
        )


@register_rule(NTKLinear)
def _ntk_linear(tape: Tape, module: NTKLinear, x: Tensor) -> Tensor:
    """``K = (A A^T + bias_scale^2) o (B B^T)`` with ``A = weight_scale x``."""
    return tape.linear(x * module.weight_scale, module.weight, module.bias, bias_scale=module.bias_scale)


class Sine(nn.Module):
    """``sin(omega x)``, elementwise."""

    def __init__(self, omega: float = 1.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, x: Tensor) -> Tensor:
        """``sin(omega x)``."""
        return torch.sin(self.omega * x)

    def extra_repr(self) -> str:
        """Frequency, for ``print(network)``."""
        return f"omega={self.omega:g}"


class Finer(nn.Module):
    """``sin(omega (|x| + 1) x)``, elementwise: a frequency that grows with the input (Liu et al. 2024, FINER)."""

    def __init__(self, omega: float = 30.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, x: Tensor) -> Tensor:
        """``sin(omega (|x| + 1) x)``."""
        return torch.sin(self.omega * (x.abs() + 1) * x)

    def extra_repr(self) -> str:
        """Frequency, for ``print(network)``."""
        return f"omega={self.omega:g}"


class Gaussian(nn.Module):
    """``exp(-x^2 / (2 sigma^2))``, elementwise (Ramasinghe and Lucey 2022, arXiv 2111.15135)."""

    def __init__(self, sigma: float = 0.1) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        """``exp(-x^2 / (2 sigma^2))``."""
        return torch.exp(-(x / self.sigma).square() / 2)

    def extra_repr(self) -> str:
        """Width, for ``print(network)``."""
        return f"sigma={self.sigma:g}"


class FourierFeatures(nn.Module):
    """Random Fourier features ``[sin(2 pi B x), cos(2 pi B x)]``, B ~ N(0, scale^2), fixed.

    Tancik et al. 2020 (arXiv 2006.10739). Shapes: input [n, d], output [n, F], F even.
    """

    frequencies: Tensor

    def __init__(self, in_features: int, features: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(features // 2, in_features))

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n F"]:
        """``[sin(2 pi B x), cos(2 pi B x)]``."""
        angles = 2 * math.pi * functional.linear(x, self.frequencies)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class PeriodicFeatures(nn.Module):
    """Input 0 as ``[sin(j w x_0), cos(j w x_0)]``, j = 1 .. harmonics, w = 2 pi / period; the other inputs as they are.

    What is built on it is periodic in that input, exactly. Shapes: input [n, d], output [n, 2 harmonics + d - 1].
    """

    def __init__(self, period: float, harmonics: int = 1) -> None:
        super().__init__()
        self.frequency, self.harmonics = 2 * math.pi / period, harmonics

    def forward(self, x: Tensor) -> Tensor:
        """Sines and cosines of the first input, then the other inputs."""
        angles = [j * self.frequency * x[:, :1] for j in range(1, self.harmonics + 1)]
        return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)] + [x[:, 1:]], 1)
