"""The network that the studies of the theory train, its limit of infinite width, and waves on circle and sphere.

Two layers of ReLU with biases, in NTK parameterisation: without biases no odd frequency above 1 can be learned
(Basri et al. 2019, arXiv 1906.00425). Letters: n, m points, d input dimensions. Everything is float64.
"""

import math

import torch
from jaxtyping import Float
from scipy.special import eval_legendre
from torch import Tensor, nn

from spectrain.kernels import infinite_width_ntk
from spectrain.models import mlp


def two_layer(inputs: int, width: int, seed: int) -> nn.Sequential:
    """One hidden layer of `width` units; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return mlp(inputs, 1, width=width, depth=1, activation="relu", bias_scale=1.0).double()


def two_layer_limit(x: Float[Tensor, "n d"], z: Float[Tensor, "m d"] | None = None) -> Float[Tensor, "n m"]:
    """The tangent kernel of `two_layer` at infinite width."""
    return infinite_width_ntk(
        x, z, depth=1, activation="relu", weight_variance=2.0, bias_variance=1.0, output_weight_variance=1.0
    )


def circle(angle: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    """Points of the unit circle."""
    return torch.stack([angle.cos(), angle.sin()], 1)


def even_angles(n: int) -> Float[Tensor, " n"]:
    """2 pi j / n."""
    return 2 * math.pi * torch.arange(n, dtype=torch.float64) / n


def wave(angle: Float[Tensor, " n"], frequency: int) -> Float[Tensor, "n 1"]:
    """sqrt(2) cos(frequency angle), mean square one."""
    return math.sqrt(2) * torch.cos(frequency * angle)[:, None]


def sphere(n: int) -> Float[Tensor, "n 3"]:
    """Fibonacci's lattice: n points spread evenly over the unit sphere."""
    j = torch.arange(n, dtype=torch.float64) + 0.5
    height, angle = 1 - 2 * j / n, math.pi * (1 + 5**0.5) * j
    radius = (1 - height.square()).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), height], 1)


def zonal(x: Float[Tensor, "n 3"], degree: int) -> Float[Tensor, "n 1"]:
    """sqrt(2 l + 1) P_l(x . p), the spherical harmonic of degree l around a pole p; mean square one over the sphere.

    The pole is none of the lattice's own axes.
    """
    pole = torch.tensor([0.36, 0.48, 0.8], dtype=torch.float64)
    return math.sqrt(2 * degree + 1) * torch.from_numpy(eval_legendre(degree, (x @ pole).numpy()))[:, None]
