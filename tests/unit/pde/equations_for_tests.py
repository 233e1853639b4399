"""Small equations and networks that the tests of pde/ share."""

import torch
from torch import Tensor, nn

from spectrain.models import fourier, mlp, siren
from spectrain.pde import Condition, Equation, Field, box, grad_u, laplace_u, second_u, u


class Skip(nn.Module):
    """A forward of a user's own: residual connections, slices, products, a bare weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle = nn.Linear(2, 7), nn.Linear(7, 7)
        self.weight = nn.Parameter(0.3 * torch.randn(2, 7))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        h = h + torch.sin(2 * self.middle(h)) - 0.5
        h = torch.cat([h[:, :3] ** 2, torch.exp(-h[:, 3:])], dim=1) / 2
        return torch.nn.functional.linear(h, self.weight) * (1 - x[:, :1]) * x[..., 1:]


class Tied(nn.Module):
    """One layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.middle, self.last = nn.Linear(2, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.middle(torch.tanh(self.middle(torch.tanh(self.inner(x)))))))


class Normed(nn.Sequential):
    """With a layer norm, for which jets have no rule."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 2))


NETWORKS = {
    "tanh, ntk": lambda: mlp(2, 2, width=12, depth=2, activation="tanh"),
    "gelu, standard": lambda: mlp(2, 2, width=12, depth=3, activation="gelu", parameterization="standard"),
    "fourier, sine": lambda: fourier(2, 2, features=10, scale=0.5, width=9, depth=2, activation="sine"),
    "siren": lambda: siren(2, 2, width=9, depth=2, omega=3.0),
    "wide enough for the Gram": lambda: mlp(2, 2, width=40, depth=2, activation="tanh"),
    "skip": Skip,
    "tied": Tied,
}


def network(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return NETWORKS[name]().double()


class Mixture(Equation):
    """Every kind of term at once: two components, nonlinear, a coefficient, single and grouped second derivatives."""

    domain = box([0.0, -1.0], [1.0, 1.0])
    outputs = 2
    coefficients = {"kappa": 0.7}  # noqa: RUF012

    def residual(self, field: Field) -> Tensor:
        first = u(field) * grad_u(field)[:, 1] - field.coefficients["kappa"] * laplace_u(field)
        second = grad_u(field, 1)[:, 0] + second_u(field, 1, output=1) * u(field) + laplace_u(field, 1, dims=[0])
        return torch.stack([first, second], 1)

    def conditions(self) -> list[Condition]:
        x = torch.rand(4, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        return [
            Condition("boundary", lambda f: u(f, 1) - torch.sin(f.x[:, 0]), self.domain.boundary, weight=3.0),
            Condition("slope", lambda f: grad_u(f)[:, 0], self.domain.boundary),
            Condition("data", lambda f: u(f) - f.data, x=x, data=x.sum(1)),
        ]
