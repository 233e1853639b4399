"""Errors against numbers that are known, and files that other programs read."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spectrain import InputError
from spectrain.models import mlp
from spectrain.pde import Problem
from spectrain.pde.equations import Heat, HeatInverse, LShape, Poisson
from spectrain.pde.evaluation import errors, evaluation_points, grid, residual_size
from spectrain.pde.export import write_vtk


class Nearly(nn.Module):
    """The exact solution times 1 + gap, with a parameter to count."""

    def __init__(self, equation: object, gap: float) -> None:
        super().__init__()
        self.exact, self.gap = equation.exact, nn.Parameter(torch.tensor(1 + gap, dtype=torch.float64))  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.gap * self.exact(x)
        return y


@pytest.mark.parametrize("equation", [Poisson(), Heat(2), LShape()])
def test_errors_are_relative(equation: object) -> None:
    problem = Problem(equation, Nearly(equation, 1e-3))  # type: ignore[arg-type]
    found = errors(problem, evaluation_points(problem.equation.domain, 11))
    assert found["l2_error"] == pytest.approx(1e-3, rel=1e-6)
    assert found["h1_error"] == pytest.approx(1e-3, rel=1e-6)


def test_a_coefficient_has_an_error_of_its_own() -> None:
    problem = Problem(HeatInverse(), mlp(2, 1, width=4, depth=1, activation="tanh").double())
    assert errors(problem, evaluation_points(problem.equation.domain, 11))["kappa_error"] == pytest.approx(9.0)


def test_the_residual_of_the_solution_is_zero() -> None:
    problem = Problem(Poisson(), Nearly(Poisson(), 0.5))
    x = evaluation_points(problem.equation.domain, 11)
    expected = 0.5 * Poisson().exact(x)[:, 0].abs()
    assert torch.allclose(residual_size(problem, x), expected, atol=1e-10)


def test_grids() -> None:
    made = grid(LShape().domain, 11)
    assert made.shape == (11, 11) and int(made.inside.sum()) == 121 - 25 - 1  # the quarter, and the corner
    plane = grid(Heat(4).domain, 7)
    assert plane.shape == (7, 1, 1, 1, 7)
    assert (plane.x[:, 1] == 0.5).all()
    assert evaluation_points(Poisson(5).domain).shape == (20_000, 5)


def test_a_vtk_file_has_the_first_axis_fastest(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(3, 2)
    values[2, 1] = math.nan
    write_vtk(tmp_path / "field.vtk", [np.linspace(0, 1, 3), np.linspace(5, 7, 2)], {"u": values})
    lines = (tmp_path / "field.vtk").read_text().splitlines()
    assert lines[3] == "DATASET STRUCTURED_POINTS"
    assert lines[4:8] == ["DIMENSIONS 3 2 1", "ORIGIN 0.0 5.0 0.0", "SPACING 0.5 2.0 1.0", "POINT_DATA 6"]
    assert lines[10:] == ["0", "2", "4", "1", "3", "nan"]
    with pytest.raises(InputError):
        write_vtk(tmp_path / "other.vtk", [np.arange(3.0)], {"u": values})
