"""Points where the residual is large."""

import torch
from torch import nn

from spectrain.pde import Equation, Field, Problem, box, u
from spectrain.pde.adaptive import draw_adaptively


class Step(Equation):
    """The residual of the zero network is 9 on the right half of [0, 1] and 1 on the left."""

    domain = box([0.0], [1.0])

    def residual(self, field: Field) -> torch.Tensor:
        return u(field) + 1 + 8 * (field.x[:, 0] > 0.5)


def zero_network() -> nn.Linear:
    layer = nn.Linear(1, 1).double()
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


def test_points_follow_the_residual() -> None:
    """|r| / mean + 1 is 2.8 on the right and 1.2 on the left: 70 % of draws, a little less without replacement."""
    points = draw_adaptively(Problem(Step(), zero_network(), points=4000), torch.Generator().manual_seed(0))
    x = points["interior"].x
    assert x.shape == (4000, 1)
    share = float((x > 0.5).double().mean())
    assert 0.64 < share < 0.70


def test_they_are_those_of_the_generator_and_of_the_network() -> None:
    def drawn(seed: int, bias: float = 0.0) -> torch.Tensor:
        network = zero_network()
        nn.init.constant_(network.bias, bias)
        problem = Problem(Step(), network, points=50)
        return draw_adaptively(problem, torch.Generator().manual_seed(seed))["interior"].x

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert not torch.equal(drawn(1), drawn(1, bias=-9.0))  # the residual is then 8 on the left and 0 on the right


class Solved(Step):
    """Solved by the zero network."""

    def residual(self, field: Field) -> torch.Tensor:
        return u(field)


def test_where_the_residual_is_zero_all_points_are_alike() -> None:
    points = draw_adaptively(Problem(Solved(), zero_network(), points=50), torch.Generator().manual_seed(0))
    assert points["interior"].x.shape == (50, 1)
