"""Laplace's equation on the L-shape, with the singularity of its corner."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.pde.domains import l_shape
from spectrain.pde.equation import Condition, Equation
from spectrain.pde.fields import Field, laplace_u, u


class LShape(Equation):
    """``Laplace u = 0``, u = r^(2/3) sin(2 theta / 3) on the boundary: the gradient is infinite at the corner."""

    domain = l_shape()

    def exact(self, x: Float[Tensor, "N 2"]) -> Float[Tensor, "N 1"]:
        """The corner's first singular function; theta runs from 0 to 3 pi / 2 through the domain."""
        theta = torch.remainder(torch.atan2(x[:, 1], x[:, 0]), 2 * math.pi)
        radius = x.square().sum(1)
        return (radius ** (1 / 3) * torch.sin(2 * theta / 3))[:, None]

    def residual(self, field: Field) -> Float[Tensor, " n"]:
        """``Laplace u``, divided by 10 as the boundary counts more."""
        return laplace_u(field) / 10

    def conditions(self) -> list[Condition]:
        """u = u* on the boundary."""
        return [Condition("boundary", lambda f: u(f) - self.exact(f.x)[:, 0], self.domain.boundary)]
