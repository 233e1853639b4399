"""Conditions that a network fulfils by itself, of every equation that says how."""

import pytest
import torch

from spectrain import InputError
from spectrain.models import mlp
from spectrain.optim import GaussNewton
from spectrain.pde import Equation, Problem
from spectrain.pde.equations import Heat, Helmholtz, Kovasznay, Poisson

EQUATIONS = {
    "poisson": Poisson(3, frequency=2),
    "helmholtz": Helmholtz(1.5),
    "heat": Heat(),
    "heat in the plane": Heat(2),
}


def network(equation: Equation) -> torch.nn.Module:
    torch.manual_seed(0)
    return mlp(
        equation.domain.dim, equation.outputs, width=8, depth=1, activation="tanh", parameterization="standard"
    ).double()


@pytest.mark.parametrize("equation", [Poisson(frequency=11), Helmholtz(5.5), Helmholtz(15)])
def test_a_whole_number_of_half_waves_is_told_up_to_rounding(equation: Equation) -> None:
    assert equation.hard() is not None


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_condition_holds_before_training(name: str) -> None:
    equation = EQUATIONS[name]
    known = equation.hard()
    assert known is not None
    problem = Problem(equation, network(equation), points=20, boundary_points=9, hard=True)
    assert problem.by_jets, problem.why_not
    condition = next(c for c in equation.all_conditions() if c.name == known.condition)
    assert known.condition not in problem.conditions and condition.sampler is not None
    x = condition.sampler(50, torch.Generator().manual_seed(0))
    assert float((problem.network(x) - equation.exact(x)).abs().max()) < 1e-14
    elsewhere = equation.domain.interior(5, torch.Generator().manual_seed(0))
    assert float((problem.network(elsewhere) - equation.exact(elsewhere)).abs().max()) > 0.01


def test_it_trains_the_rest() -> None:
    problem = Problem(Heat(), network(Heat()), points=60, boundary_points=20, hard=True)
    residuals = problem.residuals(problem.draw(torch.Generator().manual_seed(0)))
    optimizer = GaussNewton(problem.parameters())
    losses = [float(optimizer.step(residuals)) for _ in range(20)]
    assert losses[-1] < 1e-4 * losses[0]


@pytest.mark.parametrize("equation", [Kovasznay(), Poisson(solution="cosines"), Poisson(frequency=0.5), Helmholtz(0.7)])
def test_where_no_way_is_known_it_is_said(equation: Equation) -> None:
    with pytest.raises(InputError, match=f"{equation.name} does not say"):
        Problem(equation, network(equation), hard=True)
