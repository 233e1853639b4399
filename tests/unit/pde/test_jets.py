"""Derivatives that come forward, against torch.func."""

import pytest
import torch
from torch import nn

from spectrain.pde.jets import FUNCTIONS, Channels, Jet, NoJetError

from .equations_for_tests import NETWORKS, network

ALL = Channels((0, 1), ((0,), (1,), (0, 1)))


@pytest.mark.parametrize("name", NETWORKS)
def test_value_gradient_and_second_derivatives(name: str) -> None:
    net = network(name)
    x = torch.rand(6, 2, dtype=torch.float64)
    jet = net(Jet.of_points(x, ALL))

    def at(point: torch.Tensor) -> torch.Tensor:
        return net(point[None])[0]

    first = torch.func.vmap(torch.func.jacrev(at))(x)
    second = torch.func.vmap(torch.func.hessian(at))(x).diagonal(dim1=2, dim2=3)
    expected = torch.cat([net(x)[:, None], first.transpose(1, 2), second.transpose(1, 2), second.sum(2)[:, None]], 1)
    assert torch.allclose(jet.h, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "function",
    [lambda x: 1 / (x + 2), lambda x: (x + 1) ** 1.5, lambda x: x**3 - x**1, lambda x: x / (2 + torch.cos(x))][1:],
)
def test_powers_and_quotients(function: object) -> None:
    x = torch.rand(5, 1, dtype=torch.float64)
    jet = function(Jet.of_points(x, Channels((0,), ((0,),))))  # type: ignore[operator]

    def at(point: torch.Tensor) -> torch.Tensor:
        return function(point[None])[0, 0]  # type: ignore[operator]

    assert torch.allclose(jet.h[:, 1, 0], torch.func.vmap(torch.func.grad(at))(x)[:, 0])
    assert torch.allclose(jet.h[:, 2, 0], torch.func.vmap(torch.func.hessian(at))(x)[:, 0, 0])


@pytest.mark.parametrize(
    "layer", [nn.ReLU(), nn.Softmax(dim=1), nn.GELU(approximate="tanh"), nn.LayerNorm(2), nn.Flatten(0)]
)
def test_what_has_no_rule_says_so(layer: nn.Module) -> None:
    with pytest.raises((NoJetError, AttributeError)):
        layer.double()(Jet.of_points(torch.rand(3, 2, dtype=torch.float64), ALL))


def test_points_are_not_indexed_and_other_tensors_not_multiplied() -> None:
    jet = Jet.of_points(torch.rand(3, 2, dtype=torch.float64), ALL)
    for wrong in (lambda: jet[0], lambda: jet[:2], lambda: jet * torch.ones(3, 2), lambda: jet ** torch.ones(2)):
        with pytest.raises(NoJetError):
            wrong()


def test_the_table_answers_with_jets() -> None:
    assert all(callable(answer) for answer in FUNCTIONS.values())
