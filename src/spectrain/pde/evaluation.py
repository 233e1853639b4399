"""How far a network is from the solution: on a grid of the domain, or on fixed random points in high dimension.

Legend: N points, d inputs, C outputs, G points along each axis of a grid.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spectrain.pde.domains import Domain
from spectrain.pde.equation import Equation
from spectrain.pde.fields import JetField
from spectrain.pde.jets import Channels
from spectrain.pde.problem import Problem

RANDOM_POINTS = 20_000
CHUNK = 8192


@dataclass(frozen=True)
class Grid:
    """Points x [N, d] in C order over `axes`, those outside the domain marked by `inside`."""

    x: Float[Tensor, "N d"]
    axes: tuple[Float[Tensor, " G"], ...]
    inside: Bool[Tensor, " N"]

    @property
    def shape(self) -> tuple[int, ...]:
        """G of every axis."""
        return tuple(len(axis) for axis in self.axes)


def grid(domain: Domain, size: int) -> Grid:
    """`size` points along each axis of the box around the domain; beyond three inputs, a plane through its middle.

    The plane is that of the first two inputs, or of the first and time.
    """
    axes = tuple(torch.linspace(a, b, size, dtype=torch.float64) for a, b in zip(domain.low, domain.high, strict=True))
    if domain.dim > 3:
        kept = {0, domain.dim - 1} if domain.has_time else {0, 1}
        axes = tuple(axis if i in kept else axis.mean()[None] for i, axis in enumerate(axes))
    x = torch.cartesian_prod(*axes).reshape(-1, domain.dim)
    inside = torch.ones(len(x), dtype=torch.bool) if domain.contains is None else domain.contains(x)
    return Grid(x, axes, inside)


def evaluation_points(domain: Domain, size: int = 101) -> Float[Tensor, "N d"]:
    """Where errors are measured: a grid for up to two inputs, random points from a seed of their own beyond."""
    if domain.dim <= 2:
        made = grid(domain, size)
        return made.x[made.inside]
    return domain.interior(RANDOM_POINTS, torch.Generator().manual_seed(20_240_229))


@torch.no_grad()
def predict(problem: Problem, x: Float[Tensor, "N d"]) -> Float[Tensor, "N C"]:
    """The network at x, in float64 on the CPU."""
    parts = [problem.network(part.to(problem.device, problem.dtype)) for part in x.split(CHUNK)]
    return torch.cat(parts).double().cpu()


@torch.no_grad()
def errors(problem: Problem, x: Float[Tensor, "N d"]) -> dict[str, float]:
    """Relative errors over the points x, all outputs together; empty where no solution is known.

        l2_error = |u - u*| / |u*|,   h1_error = sqrt(|u - u*|^2 + |grad(u - u*)|^2) / sqrt(|u*|^2 + |grad u*|^2)

    The H1 error needs an `exact` that torch can differentiate. ``NAME_error`` is the relative error of a coefficient.
    """
    equation = problem.equation
    found = {
        f"{name}_error": abs(float(value) / equation.true_coefficients[name] - 1)
        for name, value in problem.coefficients().items()
        if name in equation.true_coefficients
    }
    exact = equation.exact(x)
    if exact is None:
        return found
    gap = predict(problem, x) - exact
    found["l2_error"] = float(gap.norm() / exact.norm())
    slope = exact_gradient(equation, x)
    if slope is not None:
        difference = _gradient(problem, x) - slope
        above, below = gap.square().sum() + difference.square().sum(), exact.square().sum() + slope.square().sum()
        found["h1_error"] = float((above / below).sqrt())
    return found


def exact_gradient(equation: Equation, x: Float[Tensor, "N d"]) -> Float[Tensor, "N C d"] | None:
    """Of the exact solution, or None where it does not come from differentiable functions."""
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        exact = equation.exact(leaf)
        if exact is None or not exact.requires_grad:
            return None
        columns = exact.unbind(1)
        slopes = [torch.autograd.grad(column.sum(), leaf, retain_graph=True)[0] for column in columns]
    return torch.stack(slopes, 1)


def _gradient(problem: Problem, x: Tensor) -> Tensor:
    channels = Channels(tuple(range(x.shape[1])))
    return torch.cat([problem.field(part, channels).first().double().cpu() for part in x.split(CHUNK)])


@torch.no_grad()
def residual_size(problem: Problem, x: Float[Tensor, "N d"]) -> Float[Tensor, " N"]:
    """|residual| of the equation inside the domain, over its components."""
    parts = []
    for part in x.split(CHUNK):
        points = part.to(problem.device, problem.dtype)
        if problem.by_jets:
            field: JetField = problem.field(points, problem.channels["interior"])  # type: ignore[assignment]
            r = problem.equation.residual(field)
        else:
            r = problem.equation.residual(problem.field(points))
        parts.append(r.reshape(len(part), -1).norm(dim=1).double().cpu())
    return torch.cat(parts)
