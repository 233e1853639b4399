"""Every equation's own solution solves it and fulfils its conditions; references agree with independent ones."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from spectrain import InputError
from spectrain.models import mlp, periodic
from spectrain.pde import Equation, Problem
from spectrain.pde.equations import (
    AllenCahn,
    Burgers,
    Heat,
    HeatInverse,
    Helmholtz,
    Kovasznay,
    LShape,
    Poisson,
    TaylorGreen,
    Wave,
)
from spectrain.pde.evaluation import exact_gradient
from spectrain.pde.fields import PointField
from spectrain.pde.spectral import PeriodicReference

EXACT = {
    "poisson": Poisson(),
    "poisson, 10 pi": Poisson(frequency=10),
    "poisson 5-d": Poisson(5, solution="cosines"),
    "helmholtz": Helmholtz(),
    "heat": Heat(),
    "heat 4-d": Heat(4),
    "heat, inverse": HeatInverse(noise=0.0),
    "wave": Wave(),
    "kovasznay": Kovasznay(),
    "taylor-green": TaylorGreen(),
    "l-shape": LShape(),
}


@pytest.mark.parametrize("name", EXACT)
def test_the_exact_solution_solves_it(name: str) -> None:
    equation = EXACT[name]
    generator = torch.Generator().manual_seed(0)
    coefficients = {key: torch.tensor(value, dtype=torch.float64) for key, value in equation.true_coefficients.items()}
    for condition in equation.all_conditions():
        x = condition.x if condition.sampler is None else condition.sampler(20, generator)
        assert x is not None
        field = PointField(lambda point: equation.exact(point[None])[0], x, condition.data, coefficients)  # type: ignore[index]
        assert float(condition.residual(field).abs().max()) < 1e-10, condition.name


def network_for(equation: Equation) -> nn.Module:
    torch.manual_seed(0)
    make = periodic if isinstance(equation, AllenCahn) else mlp
    return make(equation.domain.dim, equation.outputs, width=6, depth=2, activation="tanh").double()


# Of equations with the same kind of residual one is quick.
KINDS = ("poisson", "heat, inverse", "wave", "kovasznay", "burgers", "allen-cahn")


@pytest.mark.parametrize(
    "name",
    [
        name if name in KINDS else pytest.param(name, marks=pytest.mark.slow)
        for name in (*EXACT, "burgers", "allen-cahn")
    ],
)
def test_every_equation_has_a_factored_kernel(name: str) -> None:
    equation = {"burgers": Burgers(), "allen-cahn": AllenCahn(), **EXACT}[name]
    problem = Problem(equation, network_for(equation), points=12, boundary_points=4)
    assert problem.by_jets, problem.why_not
    residuals = problem.residuals(problem.draw(torch.Generator().manual_seed(0)))
    K, oracle = residuals.linearize().gram(), residuals.explicit().gram()
    assert torch.allclose(K, oracle, rtol=1e-10, atol=1e-12 * float(oracle.abs().max()))


def cole_hopf(x: float, t: float, nu: float) -> float:
    """Burgers' exact solution (Basdevant et al. 1986) by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite.hermgauss(160)
    y = x - 2 * math.sqrt(nu * t) * nodes
    kernel = weights * np.exp(-np.cos(math.pi * y) / (2 * math.pi * nu) + 1 / (2 * math.pi * nu))
    return float(-(kernel * np.sin(math.pi * y)).sum() / kernel.sum())


@pytest.fixture(scope="module")
def burgers() -> Burgers:
    """One, which keeps its reference."""
    return Burgers()


def test_the_reference_of_burgers_is_that_of_cole_and_hopf(burgers: Burgers) -> None:
    points = [(-0.7, 0.3), (0.2, 0.5), (0.02, 0.4), (-0.005, 0.8), (0.5, 1.0)]
    found = burgers.exact(torch.tensor(points, dtype=torch.float64))[:, 0].tolist()
    expected = [cole_hopf(x, t, burgers.viscosity) for x, t in points]
    assert found == pytest.approx(expected, abs=1e-5)


def test_references_have_slopes_for_the_H1_error(burgers: Burgers) -> None:
    """Burgers' steepest slope, at the moment 1.6037 / pi (Basdevant et al. 1986), and a difference quotient."""
    slope = exact_gradient(burgers, torch.tensor([[0.0, 1.6037 / math.pi], [-0.7, 0.3]], dtype=torch.float64))
    assert slope is not None
    assert float(slope[0, 0, 0]) == pytest.approx(-152.00516, rel=1e-4)
    ends = torch.tensor([[-0.7, 0.301], [-0.7, 0.299]], dtype=torch.float64)
    later, before = burgers.exact(ends)[:, 0].tolist()
    assert float(slope[1, 0, 1]) == pytest.approx((later - before) / 2e-3, rel=1e-4)


def test_the_spectral_solver_is_of_fourth_order() -> None:
    """u_t = u_xx / 10 - u^3 against itself with many steps."""

    def solve(steps: int) -> torch.Tensor:
        reference = PeriodicReference(
            lambda x: torch.cos(math.pi * x),
            lambda k: -0.1 * k**2,
            local=lambda v: -(v**3),
            modes=64,
            steps=steps,
            stored=5,
        )
        x = torch.linspace(-1, 1, 9, dtype=torch.float64)
        return reference(torch.stack([x, torch.ones_like(x)], 1))

    best = solve(640)
    errors = [float((solve(steps) - best).abs().max()) for steps in (8, 16)]
    assert 10 < errors[0] / errors[1] < 24


@pytest.mark.parametrize(
    "make",
    [
        lambda: Poisson(0),
        lambda: Poisson(solution="tangents"),  # type: ignore[arg-type]
        lambda: Helmholtz(-1),
        lambda: Heat(0),
        lambda: HeatInverse(0),
        lambda: Burgers(0.0),
    ],
)
def test_settings_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(InputError):
        make()  # type: ignore[operator]
