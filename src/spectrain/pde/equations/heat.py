"""The heat equation, in any dimension and as an inverse problem."""

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.pde.domains import box, time_slab
from spectrain.pde.equation import Condition, Equation, Hard
from spectrain.pde.fields import Field, grad_u, laplace_u, u


class Heat(Equation):
    """``u_t = Laplace u / 4`` on [0, 1]^d x [0, 1], u = exp(-t) sum_i sin(2 x_i); the inputs are (x, t)."""

    def __init__(self, dim: int = 1) -> None:
        if dim < 1:
            raise InputError(f"Heat(dim={dim}): the dimension of space must be at least 1.")
        self.dim = dim
        self.domain = time_slab(box([0.0] * dim, [1.0] * dim), 1.0)

    def exact(self, x: Float[Tensor, "N d"]) -> Float[Tensor, "N 1"]:
        """Decaying waves."""
        return torch.exp(-x[:, -1:]) * torch.sin(2 * x[:, :-1]).sum(1, keepdim=True)

    def residual(self, field: Field) -> Float[Tensor, " n"]:
        """``u_t - Laplace u / 4``."""
        return grad_u(field)[:, -1] - laplace_u(field, dims=range(self.dim)) / 4

    def conditions(self) -> list[Condition]:
        """u = u* on the boundary at all times, and at the first moment."""

        def given(field: Field) -> Tensor:
            return u(field) - self.exact(field.x)[:, 0]

        return [Condition("boundary", given, self.domain.boundary), Condition("initial", given, self.domain.initial)]

    def hard(self) -> Hard:
        """The first moment: ``sum_i sin(2 x_i) + t network``."""

        def start(x: Any) -> Any:
            return sum(torch.sin(2 * x[:, i : i + 1]) for i in range(self.dim))

        return Hard("initial", lambda x: x[:, self.dim :], start)


class HeatInverse(Equation):
    """``u_t = kappa u_xx`` on [0, 1] x [0, 1], kappa unknown, u known with noise at some points.

    u = exp(-kappa pi^2 t) sin(pi x) with kappa = 0.1; the search starts from kappa = 1.
    """

    domain = time_slab(box([0.0], [1.0]), 1.0)
    coefficients: ClassVar[dict[str, float]] = {"kappa": 1.0}
    true_coefficients: ClassVar[dict[str, float]] = {"kappa": 0.1}

    def __init__(self, measurements: int = 200, noise: float = 0.01, seed: int = 0) -> None:
        if measurements < 1 or noise < 0:
            raise InputError(
                f"HeatInverse(measurements={measurements}, noise={noise}): it needs at least 1 measurement, noise >= 0."
            )
        generator = torch.Generator().manual_seed(seed)
        self.x = self.domain.interior(measurements, generator)
        error = noise * torch.randn(measurements, generator=generator, dtype=torch.float64)
        self.data = self.exact(self.x)[:, 0] + error

    def exact(self, x: Float[Tensor, "N 2"]) -> Float[Tensor, "N 1"]:
        """The first mode's decay."""
        rate = self.true_coefficients["kappa"] * math.pi**2
        return torch.exp(-rate * x[:, 1:]) * torch.sin(math.pi * x[:, :1])

    def residual(self, field: Field) -> Float[Tensor, " n"]:
        """``u_t - kappa u_xx``."""
        return grad_u(field)[:, 1] - field.coefficients["kappa"] * laplace_u(field, dims=[0])

    def conditions(self) -> list[Condition]:
        """Zero at both ends, and the measurements."""
        return [
            Condition("boundary", u, self.domain.boundary),
            Condition("data", self._misfit, x=self.x, data=self.data),
        ]

    def _misfit(self, field: Field) -> Float[Tensor, " n"]:
        assert field.data is not None
        return u(field) - field.data
