"""Helmholtz's equation on the unit square."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.pde.domains import box
from spectrain.pde.equation import Condition, Equation, Hard
from spectrain.pde.fields import Field, laplace_u, u
from spectrain.pde.wrappers import zero_at_ends


class Helmholtz(Equation):
    """``Laplace u + k^2 u = f`` with u = sin(k x) sin(k y), given on the boundary; f = -k^2 u. `waves`: k / (2 pi).

    The equation is divided by k^2, so that its residual has the size of u.
    """

    domain = box([0.0, 0.0], [1.0, 1.0])

    def __init__(self, waves: float = 2.0) -> None:
        if not waves > 0:
            raise InputError(f"Helmholtz(waves={waves}): the number of waves across the square must be above 0.")
        self.k = 2 * math.pi * waves

    def exact(self, x: Float[Tensor, "N 2"]) -> Float[Tensor, "N 1"]:
        """Standing waves."""
        return torch.sin(self.k * x).prod(1, keepdim=True)

    def residual(self, field: Field) -> Float[Tensor, " n"]:
        """``Laplace u / k^2 + u + u*``."""
        return laplace_u(field) / self.k**2 + u(field) + self.exact(field.x)[:, 0]

    def conditions(self) -> list[Condition]:
        """u = u* on the boundary."""
        return [Condition("boundary", lambda f: u(f) - self.exact(f.x)[:, 0], self.domain.boundary)]

    def hard(self) -> Hard | None:
        """Zero on the boundary, where half waves fit into the square."""
        halves = self.k / math.pi
        if abs(halves - round(halves)) > 1e-9:
            return None
        return Hard("boundary", zero_at_ends(self.domain.low, self.domain.high))
