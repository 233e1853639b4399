"""Gauss-Newton steps on points that are the same on all ranks, in one process or shared; and shares of the points."""

import torch
from torch import Tensor

from spectrain.models import mlp
from spectrain.optim import GaussNewton
from spectrain.pde import Problem, Residuals
from spectrain.pde.equations import Kovasznay

# (width, points): more residuals than parameters, and fewer; uneven parts for 2 and 3 ranks.
SIZES = [(6, 61), (16, 23)]


def residuals(problem: Problem, step: int, *, shared: bool) -> Residuals:
    return problem.residuals(problem.draw(torch.Generator().manual_seed(step)), shared=shared)


def make(width: int, points: int) -> Problem:
    torch.manual_seed(0)
    network = mlp(2, 3, width=width, depth=2, activation="tanh", parameterization="standard").double()
    return Problem(Kovasznay(), network, points=points, boundary_points=13)


def steps(width: int, points: int, world: int) -> Tensor:
    """The weights after six steps."""
    problem = make(width, points)
    optimizer = GaussNewton(problem.parameters(), mu=1e-6)
    for step in range(6):
        optimizer.step(residuals(problem, step, shared=world > 1))
    return torch.cat([p.detach().flatten() for p in problem.parameters()])
