"""The wave equation on an interval."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.pde.domains import box, time_slab
from spectrain.pde.equation import Condition, Equation
from spectrain.pde.fields import Field, grad_u, second_u, u


class Wave(Equation):
    """``u_tt = 4 u_xx`` on [0, 1] x [0, 1], zero at both ends and at rest at first.

    Wang et al. 2021 (arXiv 2007.14527): u = sin(pi x) cos(2 pi t) + sin(4 pi x) cos(8 pi t) / 2. The equation is
    divided by (8 pi)^2, the slopes by 8 pi.
    """

    domain = time_slab(box([0.0], [1.0]), 1.0)
    scale = 8 * math.pi

    def exact(self, x: Float[Tensor, "N 2"]) -> Float[Tensor, "N 1"]:
        """Two standing waves."""
        s, t = math.pi * x[:, :1], 2 * math.pi * x[:, 1:]
        return torch.sin(s) * torch.cos(t) + 0.5 * torch.sin(4 * s) * torch.cos(4 * t)

    def residual(self, field: Field) -> Float[Tensor, " n"]:
        """``u_tt - 4 u_xx``."""
        return (second_u(field, 1) - 4 * second_u(field, 0)) / self.scale**2

    def conditions(self) -> list[Condition]:
        """The ends, the first moment, and the slope in time there."""
        return [
            Condition("boundary", u, self.domain.boundary),
            Condition("initial", lambda f: u(f) - self.exact(f.x)[:, 0], self.domain.initial),
            Condition("at rest", lambda f: grad_u(f)[:, 1] / self.scale, self.domain.initial),
        ]
