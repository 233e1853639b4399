"""Where collocation points come from: boxes, disks, the L-shape, time slabs, or any function that samples points.

Legend: n points, d inputs (time, where there is one, is the last), c columns of a unit cube.
The samplers here map points that fill a unit cube evenly (scrambled Sobol points, Owen 1998), anew for every draw. Each
point is uniform, as of a plain generator, but a mean over n of them is closer to the integral: the loss at few fresh
points is closer to the loss itself.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
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


@dataclass(frozen=True)
class Mapped:
    """A sampler: `place` maps points of the unit cube [n, columns], spread evenly, to points [n, d]."""

    columns: int
    place: Callable[[Float[Tensor, "n c"]], Float[Tensor, "n d"]]

    def __call__(self, n: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """n points."""
        return self.place(evenly(n, self.columns, generator))


def evenly(n: int, columns: int, generator: torch.Generator) -> Float[Tensor, "n c"]:
    """n scrambled Sobol points of the unit cube."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    return torch.quasirandom.SobolEngine(columns, scramble=True, seed=seed).draw(n, dtype=torch.float64)  # type: ignore[no-untyped-call, no-any-return]


def _choose(u: Float[Tensor, " n"], shares: Float[Tensor, " k"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Of k parts one for every u in [0, 1), in proportion to `shares`; and where in its part u lies, in [0, 1)."""
    ends = (shares / shares.sum()).cumsum(0)
    chosen = torch.searchsorted(ends, u.contiguous(), right=True).clamp(max=len(ends) - 1)
    starts = torch.cat([ends.new_zeros(1), ends])
    return chosen, (u - starts[chosen]) / (starts[chosen + 1] - starts[chosen])


def box(low: Sequence[float], high: Sequence[float]) -> Domain:
    """The box low <= x <= high, of any dimension."""
    if len(low) != len(high) or not len(low) or any(not a < b for a, b in zip(low, high, strict=True)):
        raise InputError(f"A box needs low < high in every direction; it was given low={low} and high={high}.")
    a, b = (torch.tensor(side, dtype=torch.float64) for side in (low, high))
    d = len(a)
    # The faces of direction i have the area prod_{j != i} (b_j - a_j); first the lower ones, then the upper ones.
    areas = torch.stack([torch.cat([(b - a)[:i], (b - a)[i + 1 :]]).prod() for i in range(d)]).repeat(2)

    def boundary(u: Tensor) -> Tensor:
        chosen, rest = _choose(u[:, 0], areas)
        free = torch.cat([rest[:, None], u[:, 1:]], 1)  # the coordinates along the face
        direction = chosen % d
        place = torch.arange(d) - (torch.arange(d) > direction[:, None]).long()
        x = a + (b - a) * free.gather(1, place.clamp(max=free.shape[1] - 1))
        x[torch.arange(len(u)), direction] = torch.where(chosen < d, a[direction], b[direction])
        return x

    inside = Mapped(d, lambda u: a + (b - a) * u)
    return Domain(inside, tuple(a.tolist()), tuple(b.tolist()), Mapped(max(1, d - 1), boundary))


def disk(center: Sequence[float] = (0.0, 0.0), radius: float = 1.0) -> Domain:
    """The disk |x - center| <= radius in the plane."""
    if len(center) != 2 or not radius > 0:
        raise InputError(f"A disk needs a centre [x, y] and a radius above 0; it was given {center} and {radius}.")
    c = torch.tensor(center, dtype=torch.float64)

    def at(r: Tensor, turn: Tensor) -> Tensor:
        return c + r[:, None] * torch.stack([(2 * math.pi * turn).cos(), (2 * math.pi * turn).sin()], 1)

    return Domain(
        Mapped(2, lambda u: at(radius * u[:, 0].sqrt(), u[:, 1])),
        tuple((c - radius).tolist()),
        tuple((c + radius).tolist()),
        Mapped(1, lambda u: at(torch.full_like(u[:, 0], radius), u[:, 0])),
        contains=lambda x: (x - c.to(x)).norm(dim=1) <= radius,
    )


def l_shape() -> Domain:
    """[-1, 1]^2 without [0, 1] x [-1, 0]: the corner at 0 has the angle 3 pi / 2."""
    corners = torch.tensor([(0, 0), (0, -1), (-1, -1), (-1, 1), (1, 1), (1, 0)], dtype=torch.float64)
    squares = torch.tensor([(-1, -1), (-1, 0), (0, 0)], dtype=torch.float64)
    sides = corners.roll(-1, 0) - corners

    def interior(u: Tensor) -> Tensor:
        chosen, rest = _choose(u[:, 0], torch.ones(3, dtype=torch.float64))
        return squares[chosen] + torch.stack([rest, u[:, 1]], 1)

    def boundary(u: Tensor) -> Tensor:
        side, rest = _choose(u[:, 0], sides.norm(dim=1))
        return corners[side] + sides[side] * rest[:, None]

    def contains(x: Tensor) -> Tensor:
        at_corner = x.norm(dim=1) < 1e-9  # where a solution may have no gradient
        found: Tensor = ~((x[:, 0] > 1e-9) & (x[:, 1] < -1e-9)) & ~at_corner
        return found

    return Domain(Mapped(2, interior), (-1.0, -1.0), (1.0, 1.0), Mapped(1, boundary), contains=contains)


def time_slab(space: Domain, end: float) -> Domain:
    """space x [0, end], time the last input; `boundary` is the space's over all times, `initial` is t = 0."""
    if not end > 0:
        raise InputError(f"A time slab needs an end above 0; it was given {end}.")

    boundary, contains = space.boundary, space.contains
    return Domain(
        _over_time(space.interior, end),
        (*space.low, 0.0),
        (*space.high, end),
        None if boundary is None else _over_time(boundary, end),
        _over_time(space.interior, 0.0),
        None if contains is None else lambda x: contains(x[:, :-1]),
    )


def _over_time(sampler: Sampler, end: float) -> Sampler:
    """The sampler's points, each at a time in [0, end]; even in space and time together where the sampler allows it."""
    if isinstance(sampler, Mapped):
        place = sampler.place
        return Mapped(sampler.columns + 1, lambda u: torch.cat([place(u[:, :-1]), end * u[:, -1:]], 1))

    def anywhen(n: int, generator: torch.Generator) -> Tensor:
        points = sampler(n, generator)
        times = torch.rand(len(points), 1, generator=generator, dtype=torch.float64)
        return torch.cat([points, end * times], 1)

    return anywhen


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
