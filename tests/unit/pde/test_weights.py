"""Weights of conditions by kernel trace."""

import pytest
import torch

from spectrain import InputError
from spectrain.pde import Condition, Problem, u
from spectrain.pde.weights import weights_by_trace

from .equations_for_tests import Mixture, Normed, network


@pytest.mark.parametrize("name", ["skip", "normed"])
def test_they_give_every_condition_one_part_of_the_trace(name: str) -> None:
    torch.manual_seed(0)
    net = Normed().double() if name == "normed" else network(name)
    made = Problem(Mixture(), net, points=9, boundary_points=5, weights={"boundary": 50.0})
    points = made.draw(torch.Generator().manual_seed(0))
    own, given = made.residuals(points).traces(), dict(made.weights)
    K = made.residuals(points).explicit().gram()
    assert sum(own.values()) == pytest.approx(float(K.trace()), rel=1e-12)
    made.weights = weights_by_trace(made, points)
    total = sum(trace / given[key] for key, trace in own.items())
    found = made.residuals(points).traces()
    assert all(trace == pytest.approx(total, rel=1e-10) for trace in found.values())


def test_a_residual_without_a_gradient_has_no_weight_by_trace() -> None:
    class Fixed(Mixture):
        def conditions(self) -> list[Condition]:
            return [Condition("nothing", lambda field: 0 * u(field), self.domain.boundary)]

    made = Problem(Fixed(), network("skip"), points=9, boundary_points=5)
    with pytest.raises(InputError, match="Fixed: the residual of nothing does not change"):
        weights_by_trace(made, made.draw(torch.Generator().manual_seed(0)))
