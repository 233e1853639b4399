"""Poisson's equation on the unit cube."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.pde.domains import box
from spectrain.pde.equation import Condition, Equation, Hard
from spectrain.pde.fields import Field, laplace_u, u
from spectrain.pde.wrappers import zero_at_ends


class Poisson(Equation):
    """``-Laplace u = f`` on [0, 1]^d, u given on the boundary.

    "sines": u = prod_i sin(k pi x_i), zero on the boundary for whole k. "cosines": u = sum_i cos(k pi x_i). Both are
    eigenfunctions of the Laplacian, with d (k pi)^2 and (k pi)^2. The equation is divided by the eigenvalue, so that
    its residual has the size of u.
    """

    def __init__(self, dim: int = 2, frequency: float = 1.0, solution: Literal["sines", "cosines"] = "sines") -> None:
        if dim < 1 or not frequency > 0 or solution not in ("sines", "cosines"):
            raise InputError(
                f"Poisson(dim={dim}, frequency={frequency}, solution={solution!r}): dim must be at least 1, frequency "
                "above 0, solution sines or cosines."
            )
        self.domain = box([0.0] * dim, [1.0] * dim)
        self.k, self.solution = frequency * math.pi, solution
        self.eigenvalue = (dim if solution == "sines" else 1) * self.k**2

    def exact(self, x: Float[Tensor, "N d"]) -> Float[Tensor, "N 1"]:
        """The eigenfunction."""
        if self.solution == "sines":
            return torch.sin(self.k * x).prod(1, keepdim=True)
        return torch.cos(self.k * x).sum(1, keepdim=True)

    def residual(self, field: Field) -> Float[Tensor, " n"]:
        """``Laplace u + f``, f = eigenvalue u*."""
        return laplace_u(field) / self.eigenvalue + self.exact(field.x)[:, 0]

    def conditions(self) -> list[Condition]:
        """u = u* on the boundary."""
        return [Condition("boundary", lambda f: u(f) - self.exact(f.x)[:, 0], self.domain.boundary)]

    def hard(self) -> Hard | None:
        """Sines with a whole k are zero on the boundary."""
        halves = self.k / math.pi
        if self.solution != "sines" or abs(halves - round(halves)) > 1e-9:
            return None
        return Hard("boundary", zero_at_ends(self.domain.low, self.domain.high))
