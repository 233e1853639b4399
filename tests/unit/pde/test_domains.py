"""Points lie where they should, in the right proportions, and depend on the generator alone."""

import math

import pytest
import torch
from torch import Tensor

from spectrain import InputError
from spectrain.pde import Domain, box, disk, l_shape, sampled, time_slab
from spectrain.pde.domains import draw

DOMAINS = {
    "box": box([0.0, -1.0, 2.0], [1.0, 1.0, 5.0]),
    "disk": disk([1.0, -1.0], 2.0),
    "l-shape": l_shape(),
    "slab": time_slab(disk(), 3.0),
}


def points(sampler: object, n: int = 4000, seed: int = 0) -> Tensor:
    return draw(sampler, n, torch.Generator().manual_seed(seed), "test")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", DOMAINS)
def test_points_are_inside_and_repeat_with_the_seed(name: str) -> None:
    domain: Domain = DOMAINS[name]
    for sampler in (domain.interior, domain.boundary):
        x = points(sampler)
        assert x.shape == (4000, domain.dim) and x.dtype == torch.float64
        low, high = torch.tensor(domain.low), torch.tensor(domain.high)
        assert (x >= low - 1e-12).all() and (x <= high + 1e-12).all()
        assert torch.equal(x, points(sampler)) and not torch.equal(x, points(sampler, seed=1))
    if domain.contains is not None:
        assert domain.contains(points(domain.interior)).all()


def test_a_box_has_faces_in_proportion_to_their_area() -> None:
    x = points(DOMAINS["box"].boundary, 40_000)
    on = [(x[:, i] == DOMAINS["box"].low[i]) | (x[:, i] == DOMAINS["box"].high[i]) for i in range(3)]
    areas = torch.tensor([2 * 3.0, 1 * 3.0, 1 * 2.0])
    share = torch.stack([face.double().mean() for face in on])
    assert torch.allclose(share.float(), areas / areas.sum(), atol=0.02)


def test_a_disk_is_uniform() -> None:
    radius = (points(DOMAINS["disk"].interior, 40_000) - torch.tensor([1.0, -1.0])).norm(dim=1)
    assert float((radius < math.sqrt(2)).double().mean()) == pytest.approx(0.5, abs=0.02)
    edge = (points(DOMAINS["disk"].boundary) - torch.tensor([1.0, -1.0])).norm(dim=1)
    assert torch.allclose(edge, torch.full_like(edge, 2.0))


def test_the_l_shape_has_a_third_in_every_square_and_no_quarter() -> None:
    x = points(l_shape().interior, 40_000)
    upper_right = ((x[:, 0] > 0) & (x[:, 1] > 0)).double().mean()
    assert float(upper_right) == pytest.approx(1 / 3, abs=0.02)
    assert not ((x[:, 0] > 0) & (x[:, 1] < 0)).any()
    edge = points(l_shape().boundary, 40_000)
    outer = (edge.abs() - 1).abs().min(1).values < 1e-12
    inner = (edge[:, 0].abs() < 1e-12) & (edge[:, 1] <= 0) | (edge[:, 1].abs() < 1e-12) & (edge[:, 0] >= 0)
    assert (outer | inner).all()
    assert float((inner & ~outer).double().mean()) == pytest.approx(2 / 8, abs=0.02)


def test_a_slab_starts_at_zero() -> None:
    slab = DOMAINS["slab"]
    assert slab.has_time and not disk().has_time
    assert slab.initial is not None and (points(slab.initial)[:, 2] == 0).all()
    assert slab.boundary is not None
    edge = points(slab.boundary)
    assert torch.allclose(edge[:, :2].norm(dim=1), torch.ones(4000, dtype=torch.float64))
    assert float(edge[:, 2].max()) > 2.9


@pytest.mark.parametrize(
    "make",
    [lambda: box([0, 1], [1, 1]), lambda: box([], []), lambda: disk(radius=0), lambda: time_slab(disk(), 0.0)],
)
def test_impossible_domains_are_refused(make: object) -> None:
    with pytest.raises(InputError):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(0, 2), "no points"),
        (torch.zeros(3), r"tensor \[n, d\]"),
        (torch.full((3, 2), math.nan), "not finite"),
        ([1.0], "list"),
    ],
)
def test_a_sampler_of_the_users_own_is_checked(given: object, message: str) -> None:
    domain = sampled(lambda n, generator: given, [0, 0], [1, 1])  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match=f"somewhere.*{message}"):
        draw(domain.interior, 3, torch.Generator(), "somewhere")


@pytest.mark.parametrize("name", DOMAINS)
def test_points_are_spread_evenly(name: str) -> None:
    """Means over the points are closer to the integral than those over as many independent ones."""
    domain: Domain = DOMAINS[name]
    for sampler in (domain.interior, domain.boundary):
        x = torch.stack([points(sampler, 256, seed) for seed in range(20)])
        spread = x.mean(1).std(0)  # of the mean of 256, over seeds
        independent = x.std(1).mean(0) / 256**0.5
        assert (spread < 0.35 * independent).all(), (spread / independent).tolist()


def test_time_joins_any_sampler() -> None:
    corner = sampled(lambda n, g: torch.zeros(n, 2, dtype=torch.float64), [0, 0], [1, 1])
    x = points(time_slab(corner, 2.0).interior, 500)
    assert (x[:, :2] == 0).all() and 0 <= float(x[:, 2].min()) < 0.1 and 1.9 < float(x[:, 2].max()) <= 2
