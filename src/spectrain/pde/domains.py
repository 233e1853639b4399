"""Where collocation points come from: boxes, disks, the L-shape, time slabs, or any function that samples points.

Legend: n points, d inputs (time, where there is one, is the last).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spectrain.errors import InputError

Sampler = Callable[[int, torch.Generator], Float[Tensor, "n d"]]


@dataclass(frozen=True)
class Domain:
    """A set with samplers ``(n, generator) -> points [n, d]`` of its inside and of its boundary, float64.

    `low`, `high`: the box around it, for grids and figures. `contains`: which points [N, d] are in it, None for all of
    the box. `initial`: points at the first moment, for a domain with time.
    """

    interior: Sampler
    low: tuple[float, ...]
    high: tuple[float, ...]
    boundary: Sampler | None = None
    initial: Sampler | None = None
    contains: Callable[[Float[Tensor, "N d"]], Bool[Tensor, " N"]] | None = None

    @property
    def dim(self) -> int:
        """The number of inputs, d."""
        return len(self.low)

    @property
    def has_time(self) -> bool:
        """Whether the last input is time."""
        return self.initial is not None


def _uniform(n: int, d: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, d, generator=generator, dtype=torch.float64)


def box(low: Sequence[float], high: Sequence[float]) -> Domain:
    """The box low <= x <= high, of any dimension."""
    if len(low) != len(high) or not len(low) or any(not a < b for a, b in zip(low, high, strict=True)):
        raise InputError(f"A box needs low < high in every direction; it was given low={low} and high={high}.")
    a, b = (torch.tensor(side, dtype=torch.float64) for side in (low, high))
    d = len(a)
    # The faces of direction i have the area prod_{j != i} (b_j - a_j).
    areas = torch.stack([torch.cat([(b - a)[:i], (b - a)[i + 1 :]]).prod() for i in range(d)])

    def boundary(n: int, generator: torch.Generator) -> Tensor:
        x = a + (b - a) * _uniform(n, d, generator)
        face = torch.multinomial(areas, n, replacement=True, generator=generator)
        upper = torch.rand(n, generator=generator, dtype=torch.float64) < 0.5
        x[torch.arange(n), face] = torch.where(upper, b[face], a[face])
        return x

    return Domain(lambda n, g: a + (b - a) * _uniform(n, d, g), tuple(a.tolist()), tuple(b.tolist()), boundary)


def disk(center: Sequence[float] = (0.0, 0.0), radius: float = 1.0) -> Domain:
    """The disk |x - center| <= radius in the plane."""
    if len(center) != 2 or not radius > 0:
        raise InputError(f"A disk needs a centre [x, y] and a radius above 0; it was given {center} and {radius}.")
    c = torch.tensor(center, dtype=torch.float64)

    def circle(r: Tensor, generator: torch.Generator) -> Tensor:
        angle = 2 * math.pi * torch.rand(len(r), generator=generator, dtype=torch.float64)
        return c + r[:, None] * torch.stack([angle.cos(), angle.sin()], 1)

    return Domain(
        lambda n, g: circle(radius * _uniform(n, 1, g)[:, 0].sqrt(), g),
        tuple((c - radius).tolist()),
        tuple((c + radius).tolist()),
        lambda n, g: circle(torch.full((n,), radius, dtype=torch.float64), g),
        contains=lambda x: (x - c.to(x)).norm(dim=1) <= radius,
    )


def l_shape() -> Domain:
    """[-1, 1]^2 without [0, 1] x [-1, 0]: the corner at 0 has the angle 3 pi / 2."""
    corners = torch.tensor([(0, 0), (0, -1), (-1, -1), (-1, 1), (1, 1), (1, 0)], dtype=torch.float64)
    squares = torch.tensor([(-1, -1), (-1, 0), (0, 0)], dtype=torch.float64)

    def interior(n: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(3, (n,), generator=generator)
        return squares[chosen] + _uniform(n, 2, generator)

    def boundary(n: int, generator: torch.Generator) -> Tensor:
        start, end = corners, corners.roll(-1, 0)
        side = torch.multinomial((end - start).norm(dim=1), n, replacement=True, generator=generator)
        return start[side] + (end - start)[side] * _uniform(n, 1, generator)

    def contains(x: Tensor) -> Tensor:
        at_corner = x.norm(dim=1) < 1e-9  # where a solution may have no gradient
        found: Tensor = ~((x[:, 0] > 1e-9) & (x[:, 1] < -1e-9)) & ~at_corner
        return found

    return Domain(interior, (-1.0, -1.0), (1.0, 1.0), boundary, contains=contains)


def time_slab(space: Domain, end: float) -> Domain:
    """space x [0, end], time the last input; `boundary` is the space's over all times, `initial` is t = 0."""
    if not end > 0:
        raise InputError(f"A time slab needs an end above 0; it was given {end}.")

    def with_time(points: Tensor, generator: torch.Generator, length: float) -> Tensor:
        return torch.cat([points, length * _uniform(len(points), 1, generator)], 1)

    boundary, contains = space.boundary, space.contains
    return Domain(
        lambda n, g: with_time(space.interior(n, g), g, end),
        (*space.low, 0.0),
        (*space.high, end),
        None if boundary is None else lambda n, g: with_time(boundary(n, g), g, end),
        lambda n, g: with_time(space.interior(n, g), g, 0.0),
        None if contains is None else lambda x: contains(x[:, :-1]),
    )


def sampled(interior: Sampler, low: Sequence[float], high: Sequence[float], boundary: Sampler | None = None) -> Domain:
    """Any domain: functions that draw points inside it and on its boundary, and the box around it."""
    return Domain(interior, tuple(map(float, low)), tuple(map(float, high)), boundary)


def draw(sampler: Sampler, n: int, generator: torch.Generator, what: str) -> Float[Tensor, "n d"]:
    """n points of a sampler, checked.

    Raises:
        InputError: it gives no points, or something else than finite points [n, d]; naming `what`.
    """
    points = sampler(n, generator)
    if not isinstance(points, Tensor) or points.ndim != 2:
        given = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
        raise InputError(f"{what}: the domain must give points as a tensor [n, d]; it gave {given}.")
    if len(points) == 0:
        raise InputError(f"{what}: the domain gave no points for n = {n}; check its sampler and the number of points.")
    if not bool(torch.isfinite(points).all()):
        raise InputError(f"{what}: the domain gave points that are not finite; check its sampler.")
    return points
