"""Differential equations: domains, residuals, and networks that solve them."""

from spectrain.pde.domains import Domain, box, disk, l_shape, sampled, time_slab
from spectrain.pde.equation import Condition, Equation, Hard
from spectrain.pde.fields import Field, grad_u, laplace_u, second_u, u
from spectrain.pde.problem import Problem
from spectrain.pde.residuals import Points, Residuals
from spectrain.pde.wrappers import HardConditions, Solution

__all__ = [
    "Condition",
    "Domain",
    "Equation",
    "Field",
    "Hard",
    "HardConditions",
    "Points",
    "Problem",
    "Residuals",
    "Solution",
    "box",
    "disk",
    "grad_u",
    "l_shape",
    "laplace_u",
    "sampled",
    "second_u",
    "time_slab",
    "u",
]
