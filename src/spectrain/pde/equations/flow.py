"""Exact solutions of the Navier-Stokes equations in the plane: outputs are the velocity (u, v) and the pressure p."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.pde.domains import box, time_slab
from spectrain.pde.equation import Condition, Equation
from spectrain.pde.fields import Field, grad_u, laplace_u, u


class NavierStokes(Equation):
    """``w_t + (w . grad) w = -grad p + nu Laplace w, div w = 0`` for w = (u, v); a flow gives domain and `exact`."""

    outputs = 3
    viscosity: float

    def residual(self, field: Field) -> Float[Tensor, "n 3"]:
        """Both momenta and the divergence."""
        slopes = [grad_u(field, c) for c in range(3)]
        momenta = []
        for c in (0, 1):
            convection = u(field, 0) * slopes[c][:, 0] + u(field, 1) * slopes[c][:, 1]
            viscous = self.viscosity * laplace_u(field, c, dims=[0, 1])
            change = slopes[c][:, 2] if self.domain.has_time else 0.0
            momenta.append(change + convection + slopes[2][:, c] - viscous)
        return torch.stack([*momenta, slopes[0][:, 0] + slopes[1][:, 1]], 1)

    def velocity(self, field: Field) -> Float[Tensor, "n 2"]:
        """What is zero where the velocity is given."""
        return torch.stack([u(field, 0), u(field, 1)], 1) - self._exact(field.x)[:, :2]

    def _corner(self, n: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """The lowest corner at any time: a pressure that is given somewhere is determined."""
        x = self.domain.interior(n, generator)
        x[:, :2] = torch.tensor(self.domain.low[:2], dtype=x.dtype)
        return x

    def exact(self, x: Float[Tensor, "N d"]) -> Float[Tensor, "N 3"]:
        """(u, v, p)."""
        return self._exact(x)

    def _exact(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def conditions(self) -> list[Condition]:
        """The velocity on the boundary, the pressure in a corner, and the first moment of an unsteady flow."""
        found = [
            Condition("boundary", self.velocity, self.domain.boundary, weight=10.0),
            Condition("pressure", lambda f: u(f, 2) - self._exact(f.x)[:, 2], self._corner),
        ]
        if self.domain.has_time:
            found.append(Condition("initial", self.velocity, self.domain.initial, weight=10.0))
        return found


class Kovasznay(NavierStokes):
    """Steady flow behind a grid (Kovasznay 1948), Reynolds number 40, on [-1/2, 1] x [-1/2, 3/2]."""

    domain = box([-0.5, -0.5], [1.0, 1.5])
    viscosity = 1 / 40

    def _exact(self, x: Float[Tensor, "N 2"]) -> Float[Tensor, "N 3"]:
        half = 0.5 / self.viscosity
        rate = half - math.sqrt(half**2 + 4 * math.pi**2)
        grown, angle = torch.exp(rate * x[:, 0]), 2 * math.pi * x[:, 1]
        across = rate / (2 * math.pi) * grown * torch.sin(angle)
        return torch.stack([1 - grown * torch.cos(angle), across, 0.5 * (1 - grown**2)], 1)


class TaylorGreen(NavierStokes):
    """Decaying vortices (Taylor and Green 1937) on [0, pi]^2 x [0, 1], nu = 1/10; the inputs are (x, y, t)."""

    domain = time_slab(box([0.0, 0.0], [math.pi, math.pi]), 1.0)
    viscosity = 0.1

    def _exact(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        decay = torch.exp(-2 * self.viscosity * x[:, 2])
        a, b = x[:, 0], x[:, 1]
        pressure = -0.25 * (torch.cos(2 * a) + torch.cos(2 * b)) * decay**2
        velocity = (-torch.cos(a) * torch.sin(b) * decay, torch.sin(a) * torch.cos(b) * decay)
        return torch.stack([*velocity, pressure], 1)
