"""The library's networks, each a function that returns a plain `torch.nn.Sequential`.

Shapes: n points, d = in_features, C = out_features; every network maps [n, d] to [n, C].
"""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.models.layers import Finer, FourierFeatures, Gaussian, NTKLinear, PeriodicFeatures, Sine

_T = TypeVar("_T")

ACTIVATIONS: dict[str, tuple[type[nn.Module], float]] = {
    # name: (module, gain that keeps the variance of a wide layer; 1 where it is not a power of the input)
    "relu": (nn.ReLU, math.sqrt(2.0)),
    "tanh": (nn.Tanh, 1.0),
    "gelu": (nn.GELU, math.sqrt(2.0)),
    "sine": (Sine, 1.0),
}
PARAMETERIZATIONS = ("ntk", "standard")


def mlp(
    in_features: int,
    out_features: int,
    *,
    width: int = 256,
    depth: int = 3,
    activation: str = "relu",
    parameterization: str = "ntk",
    bias_scale: float = 0.3,
) -> nn.Sequential:
    """Fully connected network with `depth` hidden layers of `width` units.

    ``parameterization="ntk"``: ``h = gain W a / sqrt(fan_in) + bias_scale b`` with W, b ~ N(0, 1) (Jacot et al. 2018),
    the output layer with gain 1; no biases when `bias_scale` is 0. ``"standard"``: `torch.nn.Linear` with PyTorch's
    biases and W ~ U(-b, b), b = gain sqrt(3 / fan_in), the same variance (He et al. 2015).

    Raises:
        InputError: an unknown activation or parameterization.
    """
    module, gain = _choose(activation, ACTIVATIONS, "model.activation")
    _choose(parameterization, dict.fromkeys(PARAMETERIZATIONS), "model.parameterization")

    def linear(fan_in: int, fan_out: int, gain: float) -> nn.Module:
        if parameterization == "standard":
            layer = nn.Linear(fan_in, fan_out)
            bound = gain * math.sqrt(3 / fan_in)
            nn.init.uniform_(layer.weight, -bound, bound)
            return layer
        return NTKLinear(fan_in, fan_out, gain=gain, bias=bias_scale > 0, bias_scale=bias_scale)

    layers: list[nn.Module] = []
    for fan_in in [in_features] + [width] * (depth - 1):
        layers += [linear(fan_in, width, gain), module()]
    return nn.Sequential(*layers, linear(width, out_features, 1.0))


def fourier(
    in_features: int,
    out_features: int,
    *,
    features: int = 256,
    scale: float = 5.0,
    width: int = 256,
    depth: int = 3,
    activation: str = "relu",
    parameterization: str = "ntk",
    bias_scale: float = 0.3,
) -> nn.Sequential:
    """Random Fourier features of the given `scale` (cycles per unit of x) followed by `mlp`.

    Raises:
        InputError: an odd number of features; otherwise as `mlp`.
    """
    if features % 2:
        raise InputError(f"model.features={features} must be even: one sine and one cosine for each frequency.")
    body = mlp(
        features,
        out_features,
        width=width,
        depth=depth,
        activation=activation,
        parameterization=parameterization,
        bias_scale=bias_scale,
    )
    return nn.Sequential(FourierFeatures(in_features, features, scale), *body)


def periodic(
    in_features: int,
    out_features: int,
    *,
    period: float = 2.0,
    harmonics: int = 1,
    width: int = 64,
    depth: int = 3,
    activation: str = "tanh",
    parameterization: str = "standard",
    bias_scale: float = 0.3,
) -> nn.Sequential:
    """`mlp` on sines and cosines of the first input: periodic in it, exactly (Dong and Ni 2021, arXiv 2007.07442)."""
    body = mlp(
        2 * harmonics + in_features - 1,
        out_features,
        width=width,
        depth=depth,
        activation=activation,
        parameterization=parameterization,
        bias_scale=bias_scale,
    )
    return nn.Sequential(PeriodicFeatures(period, harmonics), *body)


def siren(
    in_features: int,
    out_features: int,
    *,
    width: int = 256,
    depth: int = 3,
    omega: float = 30.0,
    weight_scale: float = 1.0,
) -> nn.Sequential:
    """SIREN with its own initialisation (Sitzmann et al. 2020, arXiv 2006.09661, section 3.2).

    Every hidden layer is ``sin(omega (W a + b))``; W ~ U(-1/d, 1/d) in the first layer, U(-sqrt(6/width)/omega,
    sqrt(6/width)/omega) in the others. All weights but the last layer's are then multiplied by `weight_scale` (Yeom et
    al. 2024, arXiv 2410.04779); 1 is Sitzmann's own.
    """
    return _periodic(in_features, out_features, width, depth, omega, Sine, weight_scale)


def finer(
    in_features: int,
    out_features: int,
    *,
    width: int = 256,
    depth: int = 3,
    omega: float = 30.0,
    first_bias_scale: float = 1.0,
    weight_scale: float = 1.0,
) -> nn.Sequential:
    """FINER (Liu et al. 2024, arXiv 2312.02434): `siren` with ``sin(omega (|a| + 1) a)`` for the sine.

    The biases of the first layer are U(-first_bias_scale, first_bias_scale): they choose its frequencies.
    """
    network = _periodic(in_features, out_features, width, depth, omega, Finer, weight_scale)
    first = network[0]
    assert isinstance(first, nn.Linear)
    nn.init.uniform_(first.bias, -first_bias_scale, first_bias_scale)
    return network


def gauss(
    in_features: int, out_features: int, *, width: int = 256, depth: int = 3, sigma: float = 0.1
) -> nn.Sequential:
    """Hidden layers ``exp(-(W a + b)^2 / (2 sigma^2))`` with PyTorch's own initialisation (arXiv 2111.15135)."""
    layers: list[nn.Module] = []
    for fan_in in [in_features] + [width] * (depth - 1):
        layers += [nn.Linear(fan_in, width), Gaussian(sigma)]
    return nn.Sequential(*layers, nn.Linear(width, out_features))


def _periodic(
    in_features: int,
    out_features: int,
    width: int,
    depth: int,
    omega: float,
    activation: Callable[[float], nn.Module],
    weight_scale: float,
) -> nn.Sequential:
    """SIREN's layers and initialisation around ``activation(omega)``."""
    layers: list[nn.Module] = []
    for position, fan_in in enumerate([in_features] + [width] * depth):
        linear = nn.Linear(fan_in, width if position < depth else out_features)
        bound = 1 / fan_in if position == 0 else math.sqrt(6 / fan_in) / omega
        bound *= weight_scale if position < depth else 1.0
        nn.init.uniform_(linear.weight, -bound, bound)
        layers += [linear, activation(omega)]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def center_output(network: nn.Module, mean: Tensor) -> bool:
    """Set the bias of the last layer, so that the network starts at `mean` [C] plus its random function.

    The constant mode is the kernel's largest; a baseline that must first learn the mean is not a fair one.
    Returns False when the network has no last layer with a bias of C entries (it then stays as it is).
    """
    for module in reversed(list(network.modules())):
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            if bias.shape != mean.shape:
                return False
            bias.copy_(mean / getattr(module, "bias_scale", 1.0))
            return True
        if next(module.parameters(recurse=False), None) is not None:
            return False
    return False


def _choose(name: str, choices: dict[str, _T], key: str) -> _T:
    if name not in choices:
        raise InputError(f"{key}={name!r} is not known; allowed: {', '.join(choices)}.")
    return choices[name]
