"""The closed forms against quadrature, against exact limits, and against wide finite networks."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.kernels import Tape, empirical_ntk, infinite_width_nngp, infinite_width_ntk, register_rule
from spectrain.kernels.infinite_width import _DUALS
from spectrain.models.networks import mlp

ACTIVATIONS = {
    "relu": torch.relu,
    "erf": torch.erf,
    "gelu": nn.functional.gelu,
    "sine": torch.sin,
    "identity": lambda x: x,
}


def points(n: int, d: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Scaled(nn.Module):
    """A Linear layer in NTK parameterisation."""

    def __init__(self, fan_in: int, fan_out: int, s_w: float, s_b: float, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(fan_out, generator=generator, dtype=torch.float64))
        self.w, self.b = (s_w / fan_in) ** 0.5, s_b**0.5

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x * self.w, self.weight, self.bias * self.b)


@register_rule(Scaled)
def scaled(tape: Tape, module: Scaled, x: Tensor) -> Tensor:
    return tape.linear(x * module.w, module.weight, module.bias, bias_scale=module.b)


class Activation(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.name](x)


def wide(name: str, width: int, seed: int, depth: int = 2, s_w: float = 1.6, s_b: float = 0.2) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    fan_in = 3
    for _ in range(depth):
        layers += [Scaled(fan_in, width, s_w, s_b, generator), Activation(name)]
        fan_in = width
    return nn.Sequential(*layers, Scaled(width, 1, s_w, s_b, generator))


@pytest.mark.parametrize("name", ["erf", "gelu", "sine", "identity"])
def test_duals_equal_gaussian_quadrature(name: str) -> None:
    nodes, weights = (torch.from_numpy(t) for t in np.polynomial.hermite_e.hermegauss(80))
    weights = weights / math.sqrt(2 * math.pi)
    q1, q2, c = torch.tensor(0.9).double(), torch.tensor(1.4).double(), torch.tensor(-0.5).double()
    u = (q1.sqrt() * nodes)[:, None].expand(80, 80).clone().requires_grad_()
    v = (c / q1.sqrt() * nodes[:, None] + (q2 - c**2 / q1).sqrt() * nodes[None]).requires_grad_()
    f, g = ACTIVATIONS[name](u), ACTIVATIONS[name](v)
    df, dg = torch.autograd.grad(f.sum(), u)[0], torch.autograd.grad(g.sum(), v)[0]
    value, slope = _DUALS[name](q1, q2, c)
    measure = weights[:, None] * weights[None]
    assert float(value) == pytest.approx(float((measure * f * g).sum().detach()), rel=1e-8)
    assert float(slope) == pytest.approx(float((measure * df * dg).sum()), rel=1e-8)


def test_relu_by_the_textbook_formula() -> None:
    x, z, s_w, s_b = points(5), points(4, seed=1), 1.7, 0.3
    q1, q2 = (s_w * t.square().sum(1) / 3 + s_b for t in (x, z))
    c = s_w * x @ z.T / 3 + s_b
    ntk = c
    for _ in range(3):
        norm = (q1[:, None] * q2[None]).sqrt()
        theta = (c / norm).acos()
        slope = s_w * (math.pi - theta) / (2 * math.pi)
        c = s_w * norm / (2 * math.pi) * (theta.sin() + (math.pi - theta) * theta.cos()) + s_b
        q1, q2 = s_w * q1 / 2 + s_b, s_w * q2 / 2 + s_b
        ntk = c + slope * ntk
    arguments = {"depth": 3, "weight_variance": s_w, "bias_variance": s_b}
    torch.testing.assert_close(infinite_width_ntk(x, z, **arguments), ntk, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(infinite_width_nngp(x, z, **arguments), c, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("s_b", [0.0, 0.3])
def test_relu_is_exact_where_points_meet_or_oppose(s_b: float) -> None:
    x = torch.nn.functional.normalize(points(1))
    side = torch.linalg.qr(torch.cat([x, points(2, seed=3)]).T).Q.T[1:2]
    arguments = {"depth": 1, "weight_variance": 2.0, "bias_variance": s_b}
    for angle in (0.0, 1e-12, 1e-9, 1e-6):
        for sign in (1.0, -1.0):
            z = sign * (x * math.cos(angle) + side * math.sin(angle))
            q = 2 / 3 + s_b
            theta = angle if sign > 0 else math.pi - angle
            if s_b:  # the bias is one more coordinate: the angle between the longer vectors
                half = math.sqrt(2 / 3) * math.sin(theta / 2) / math.sqrt(q)
                theta = 2 * math.asin(half)
            # the first terms in the angle of the exact kernel, good to angle^3
            exact = q * math.cos(theta) + q / math.pi * (math.sin(theta) - theta * math.cos(theta)) + s_b
            exact += (math.pi - theta) / math.pi * q * math.cos(theta)
            assert float(infinite_width_ntk(x, z, **arguments)) == pytest.approx(exact, abs=4e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_wide_networks_approach_the_limit(name: str) -> None:
    x = points(6)
    arguments = {"depth": 2, "activation": name, "weight_variance": 1.6, "bias_variance": 0.2}
    limit = infinite_width_ntk(x, **arguments)
    errors = []
    for width in (64, 1024):
        differences = [empirical_ntk(wide(name, width, seed), x, method="layerwise") - limit for seed in range(6)]
        errors.append(float(torch.stack(differences).square().mean().sqrt() / limit.square().mean().sqrt()))
    # 16 times the width, a quarter of the error: with six seeds the ratio scatters by about a third.
    assert errors[1] < 0.12
    assert 2.0 < errors[0] / errors[1] < 8.0


def test_the_librarys_own_networks_have_this_limit() -> None:
    x = points(6)
    torch.manual_seed(0)
    networks = [mlp(3, 1, width=1024, depth=2, bias_scale=0.3).double() for _ in range(6)]
    limit = infinite_width_ntk(x, depth=2, weight_variance=2.0, bias_variance=0.09, output_weight_variance=1.0)
    mean = torch.stack([empirical_ntk(network, x) for network in networks]).mean(0)
    assert (mean - limit).norm() / limit.norm() < 0.06


def test_kernels_are_symmetric_and_positive() -> None:
    x = points(40)
    for name in ACTIVATIONS:
        K = infinite_width_ntk(x, depth=3, activation=name, bias_variance=0.1)
        assert torch.equal(K, K.T) or (K - K.T).abs().max() < 1e-13
        assert torch.linalg.eigvalsh(K)[0] > -1e-12 * K.trace()


def test_an_activation_of_ones_own_and_dtypes() -> None:
    x = points(5)
    own = infinite_width_ntk(x, depth=2, activation=_DUALS["erf"])
    assert torch.equal(own, infinite_width_ntk(x, depth=2, activation="erf"))
    assert infinite_width_ntk(x.float(), depth=2).dtype == torch.float32
    assert infinite_width_ntk(torch.zeros(2, 3), depth=2).isfinite().all()


def test_bad_arguments_are_refused() -> None:
    x = points(3)
    for bad in (
        {"depth": 0},
        {"depth": 1, "activation": "tanh"},
        {"depth": 1, "weight_variance": -1.0},
    ):
        with pytest.raises(InputError, match="depth" if "depth" in bad and len(bad) == 1 else next(reversed(bad))):
            infinite_width_ntk(x, **bad)
    with pytest.raises(InputError, match="matrices"):
        infinite_width_ntk(x, points(3, d=2), depth=1)
