"""The library's networks: shapes, scales, kernels, the centred output."""

from typing import Any

import pytest
import torch
from torch import nn

from spectrain import InputError, empirical_ntk
from spectrain.models import Finer, Gaussian, NTKLinear, center_output, finer, fourier, gauss, mlp, siren

NETWORKS = {
    "mlp": lambda: mlp(2, 3, width=32, depth=2),
    "mlp-standard": lambda: mlp(2, 3, width=32, depth=2, parameterization="standard", activation="tanh"),
    "mlp-gelu": lambda: mlp(2, 3, width=32, depth=1, activation="gelu"),
    "mlp-sine": lambda: mlp(2, 3, width=32, depth=1, activation="sine"),
    "fourier": lambda: fourier(2, 3, features=16, width=32, depth=2),
    "siren": lambda: siren(2, 3, width=32, depth=2),
    "finer": lambda: finer(2, 3, width=32, depth=2),
    "gauss": lambda: gauss(2, 3, width=32, depth=2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_shape_depth_and_exact_layerwise_kernel(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().double()
    x = torch.rand(7, 2, dtype=torch.float64) * 2 - 1
    assert network(x).shape == (7, 3)
    layerwise, oracle = (empirical_ntk(network, x, method=method) for method in ("layerwise", "jacobian"))
    torch.testing.assert_close(layerwise, oracle, rtol=1e-11, atol=1e-12)


def test_depth_counts_hidden_layers() -> None:
    assert sum(isinstance(m, NTKLinear) for m in mlp(2, 1, depth=3)) == 4
    assert sum(isinstance(m, nn.Linear) for m in siren(2, 1, depth=3)) == 4


def test_activations_are_their_formulas() -> None:
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)
    torch.testing.assert_close(Finer(3.0)(x), torch.sin(3.0 * (x.abs() + 1) * x))
    torch.testing.assert_close(Gaussian(0.2)(x), torch.exp(-x.square() / (2 * 0.2**2)))


def test_finer_draws_the_first_biases_wide() -> None:
    first = finer(2, 1, width=256, first_bias_scale=5.0)[0]
    assert 4.5 < float(first.bias.detach().abs().max()) < 5.0


@pytest.mark.parametrize("make", [siren, finer])
def test_weight_scale_multiplies_all_weights_but_the_last_layers(make: Any) -> None:
    torch.manual_seed(0)
    plain = make(2, 1, width=8, depth=2)
    torch.manual_seed(0)
    scaled = make(2, 1, width=8, depth=2, weight_scale=3.0)
    weights = [name for name, _ in plain.named_parameters() if name.endswith("weight")]
    for name, p in plain.named_parameters():
        factor = 3.0 if name in weights[:-1] else 1.0
        torch.testing.assert_close(scaled.get_parameter(name), factor * p)


def test_ntk_parameterisation_keeps_the_kernel_as_the_width_grows() -> None:
    torch.manual_seed(0)
    x = torch.rand(10, 2, dtype=torch.float64) * 2 - 1
    traces = [float(empirical_ntk(mlp(2, 1, width=w, depth=2).double(), x).trace()) for w in (256, 1024)]
    assert 0.8 < traces[0] / traces[1] < 1.25


def test_relu_gain_keeps_the_variance_of_wide_layers() -> None:
    torch.manual_seed(0)
    layers = mlp(64, 1, width=2048, depth=3, bias_scale=0.0)
    x = torch.randn(16, 64)
    for layer in layers[:-1]:
        x = layer(x)
    assert 0.7 < float(x.square().mean()) < 1.3


@pytest.mark.parametrize("name", NETWORKS)
def test_center_output_sets_the_last_bias(name: str) -> None:
    network = NETWORKS[name]()
    x, mean = torch.rand(5, 2), torch.tensor([0.3, -0.2, 0.9])
    last = network[-1]
    with torch.no_grad():
        last.bias.zero_()
        before = network(x)
        assert center_output(network, mean)
        torch.testing.assert_close(network(x), before + mean)


def test_center_output_says_when_it_cannot() -> None:
    assert not center_output(nn.Sequential(nn.Linear(2, 3, bias=False)), torch.zeros(3))
    assert not center_output(nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 3, bias=False)), torch.zeros(3))
    assert not center_output(nn.ReLU(), torch.zeros(3))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mlp(2, 1, activation="rely"), "model.activation='rely'.*allowed: relu"),
        (lambda: mlp(2, 1, parameterization="mup"), "model.parameterization='mup'"),
        (lambda: fourier(2, 1, features=7), "must be even"),
    ],
)
def test_unknown_settings_are_refused(build: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
