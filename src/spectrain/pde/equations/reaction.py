"""Burgers' and Allen-Cahn's equations on [-1, 1], with references that a spectral solver computes."""

import math
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.pde.domains import box, time_slab
from spectrain.pde.equation import Condition, Equation
from spectrain.pde.fields import Field, grad_u, second_u, u
from spectrain.pde.spectral import PeriodicReference


class Burgers(Equation):
    """``u_t + u u_x = nu u_xx`` on [-1, 1] x [0, 1], u(x, 0) = -sin(pi x), zero at both ends; a shock forms at x = 0.

    Raissi et al. 2019, with nu = .01/pi.
    """

    domain = time_slab(box([-1.0], [1.0]), 1.0)

    def __init__(self, viscosity: float = 0.01 / math.pi) -> None:
        if not viscosity >= 1e-3:
            raise InputError(
                f"Burgers(viscosity={viscosity}): the reference resolves shocks of viscosity 1e-3 and above."
            )
        self.viscosity = viscosity

    @cached_property
    def _reference(self) -> PeriodicReference:
        return PeriodicReference(
            start=lambda x: -torch.sin(math.pi * x),
            linear=lambda k: -self.viscosity * k**2,
            conserved=lambda v: -0.5 * v * v,
        )

    def exact(self, x: Float[Tensor, "N 2"]) -> Float[Tensor, "N 1"]:
        """Computed by `PeriodicReference`: the solution is odd, so zero at the ends by itself."""
        return self._reference(x)

    def residual(self, field: Field) -> Float[Tensor, " n"]:
        """``u_t + u u_x - nu u_xx``."""
        slope = grad_u(field)
        return slope[:, 1] + u(field) * slope[:, 0] - self.viscosity * second_u(field, 0)

    def conditions(self) -> list[Condition]:
        """The first moment, and zero at the ends."""
        return [
            Condition("boundary", u, self.domain.boundary),
            Condition("initial", lambda f: u(f) + torch.sin(math.pi * f.x[:, 0]), self.domain.initial, weight=10.0),
        ]


class AllenCahn(Equation):
    """``u_t = 1e-4 u_xx + 5 (u - u^3)`` on [-1, 1] x [0, 1], periodic, u(x, 0) = x^2 cos(pi x) (Raissi et al. 2019).

    The network must be periodic in x by itself: `spectrain.models.periodic` is.
    """

    domain = time_slab(box([-1.0], [1.0]), 1.0)

    @cached_property
    def _reference(self) -> PeriodicReference:
        return PeriodicReference(
            start=lambda x: x**2 * torch.cos(math.pi * x),
            linear=lambda k: -1e-4 * k**2 + 5,
            local=lambda v: -5 * v**3,
        )

    def exact(self, x: Float[Tensor, "N 2"]) -> Float[Tensor, "N 1"]:
        """Computed by `PeriodicReference`."""
        return self._reference(x)

    def residual(self, field: Field) -> Float[Tensor, " n"]:
        """``u_t - 1e-4 u_xx - 5 (u - u^3)``, divided by 5."""
        v = u(field)
        return (grad_u(field)[:, 1] - 1e-4 * second_u(field, 0)) / 5 - (v - v**3)

    def conditions(self) -> list[Condition]:
        """The first moment; and both ends alike, which a periodic network fulfils."""

        def start(field: Field) -> Tensor:
            x = field.x[:, 0]
            return u(field) - x**2 * torch.cos(math.pi * x)

        return [Condition("initial", start, self.domain.initial, weight=100.0)]
