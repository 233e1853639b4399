"""The last layer by least squares: against a float64 oracle, on every parameterisation, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from spectrain import InputError
from spectrain.models import fourier, mlp, siren
from spectrain.optim import solve_readout, solved_readout

NETWORKS = {
    "standard": lambda: mlp(2, 3, width=16, depth=2, parameterization="standard"),
    "ntk": lambda: mlp(2, 3, width=16, depth=2),
    "no bias": lambda: mlp(2, 3, width=16, depth=2, bias_scale=0.0),
    "fourier": lambda: fourier(2, 3, width=16, features=8),
    "siren": lambda: siren(2, 3, width=16, depth=2),
    "batch norm": lambda: nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3)),
}


def problem(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    network = NETWORKS[name]().to(dtype)
    x = torch.rand(200, 2, dtype=dtype) * 2 - 1
    return network, x, torch.stack([torch.sin(3 * x[:, 0]), x[:, 1] ** 2, 5 * x.prod(1)], 1)


def squared_error(network: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((network(x) - y).double().square().sum())


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_ridge_solution_of_numpy(name: str) -> None:
    """min |R - A D|^2 + ridge m |D|^2 as an ordinary least-squares problem with more rows; A by autograd."""
    network, x, y = problem(name)
    network.eval()
    layer = list(network.modules())[-1]
    before = [p.detach().clone() for p in layer.parameters(recurse=False)]
    with torch.no_grad():
        residual = (y - network(x))[:, :1]
    # A by autograd: what the first output's weights are multiplied with.
    rows = [torch.autograd.grad(network(x[i : i + 1])[0, 0], list(layer.parameters(recurse=False))) for i in range(200)]
    A = torch.stack([torch.cat([g[0].flatten() if g.ndim == 2 else g[:1] for g in row]) for row in rows])
    m = 1e-3 * A.square().sum(0).mean()
    padded = np.vstack([A.numpy(), np.sqrt(m.item()) * np.eye(A.shape[1])])
    expected = np.linalg.lstsq(padded, np.vstack([residual.numpy(), np.zeros((A.shape[1], 1))]), rcond=None)[0][:, 0]
    solve_readout(network, x, y, ridge=1e-3, chunk_size=64)
    change = [p.detach() - q for p, q in zip(layer.parameters(recurse=False), before, strict=True)]
    found = torch.cat([c[0] if c.ndim == 2 else c[:1] for c in change])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_squared_error_falls_and_never_grows(name: str) -> None:
    network, x, y = problem(name, torch.float32)
    network.eval()
    before = squared_error(network, x, y)
    solve_readout(network, x, y)
    once = squared_error(network, x, y)
    solve_readout(network, x, y)
    assert once < 0.9 * before
    assert squared_error(network, x, y) < 1.001 * once


def test_chunks_do_not_matter() -> None:
    network, x, y = problem("ntk")
    other = copy.deepcopy(network)
    solve_readout(network, x, y)
    solve_readout(other, x, y, chunk_size=7)
    assert torch.allclose(network(x), other(x), rtol=1e-9, atol=1e-11)


def test_the_context_gives_everything_back_to_the_bit() -> None:
    network, x, y = problem("batch norm")
    network.train()
    before = copy.deepcopy(network.state_dict())
    with solved_readout(network, x, y):
        assert not torch.equal(network[-1].weight, before["3.weight"])  # type: ignore[index]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training and network[1].training  # type: ignore[index]


def test_half_precision_and_another_shape_are_refused() -> None:
    network, x, y = problem("standard", torch.bfloat16)
    with pytest.raises(InputError, match="half precision"):
        solve_readout(network, x, y)
    network, x, y = problem("standard", torch.float32)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="half precision"):
        solve_readout(network, x, y)
    with pytest.raises(InputError, match=r"y is \[200\], and the network's output \[200, 3\]"):
        solve_readout(network, x, y[:, 0])


@pytest.mark.parametrize("value", [torch.nan, 0.0])
def test_features_that_say_nothing_change_nothing(value: float) -> None:
    network, x, y = problem("standard")
    with torch.no_grad():
        network[0].weight.fill_(value), network[0].bias.fill_(value)  # type: ignore[index]
        network[2].weight.fill_(value), network[2].bias.fill_(value)  # type: ignore[index]
    network[-1].bias = None  # type: ignore[index]
    before = network[-1].weight.detach().clone()  # type: ignore[index]
    solve_readout(network, x, y)
    assert torch.equal(network[-1].weight, before)  # type: ignore[index]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.last.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


class Tripled(nn.Linear):
    """Another forward than its weight's."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


def frozen() -> nn.Module:
    network = mlp(2, 2, width=4)
    network[-1].requires_grad_(False)
    return network


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Tanh()), "does not end with a linear layer"),
        (nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "does not end with a linear layer"),
        (nn.Sequential(nn.Linear(2, 2), Tripled(2, 2)), "does not end with a linear layer"),
        (weight_norm(nn.Linear(2, 2)), "does not end with a linear layer"),
        (Tied(), r"used elsewhere too \(first.weight, last.weight\)"),
        (frozen(), "frozen"),
    ],
)
def test_what_is_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        solve_readout(network, torch.rand(5, 2), torch.rand(5, 2))
