"""Spectral maps against their formulas."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectrain.errors import InputError
from spectrain.spectral_maps import (
    SpectralMap,
    bandpass,
    chain,
    clip,
    custom,
    flatten,
    heat,
    identity,
    power,
    raise_head,
    ridge,
    sobolev,
)

LAMBDA = torch.tensor([16.0, 4.0, 1.0, 0.25], dtype=torch.float64)


def g(ratio: torch.Tensor) -> list[float]:
    return list((ratio * LAMBDA).tolist())


def test_values() -> None:
    assert g(identity()(LAMBDA)) == [16, 4, 1, 0.25]
    assert g(flatten()(LAMBDA)) == [0.25, 0.25, 0.25, 0.25]
    assert g(flatten(rank=2)(LAMBDA)) == [1, 1, 1, 0.25]
    assert g(power(0.5)(LAMBDA)) == [2, 1, 0.5, 0.25]
    assert g(power(0.5, rank=2)(LAMBDA)) == [4, 2, 1, 0.25]


@given(alpha=st.floats(0, 1), rank=st.sampled_from([None, 1, 2, 3]))
def test_power_keeps_the_order_and_never_speeds_a_mode_up(alpha: float, rank: int | None) -> None:
    ratio = power(alpha, rank)(LAMBDA)
    assert ((ratio > 0) & (ratio <= 1)).all()
    new = ratio * LAMBDA
    assert (new[:-1] >= new[1:] - 1e-12).all()


def test_ends_of_power() -> None:
    torch.testing.assert_close(power(0, 2)(LAMBDA), identity()(LAMBDA))
    torch.testing.assert_close(power(1, 2)(LAMBDA), flatten(2)(LAMBDA))


@pytest.mark.parametrize("rank", [0, -1, 4, 9])
def test_a_rank_that_is_not_there_is_refused(rank: int) -> None:
    for make in (flatten, lambda rank: power(0.5, rank)):
        with pytest.raises(InputError, match="rank"):
            make(rank=rank)(LAMBDA)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside_zero_one_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match="alpha"):
        power(alpha)


ALL = [
    identity(),
    flatten(),
    flatten(2),
    power(0.5),
    power(0.95, 3),
    raise_head(0.5),
    raise_head(2.0, 1),
    ridge(0.1),
    ridge(1e-3, alpha=0.5, relative=True),
    heat(0.1),
    heat(100.0),
    sobolev(1.0),
    sobolev(-0.5, dimension=2, rank=3),
    bandpass(1, 3),
    custom(lambda e: 1 / (1 + e)),
    chain(flatten(2), power(0.5)),
    clip(raise_head(2.0), 0.5, 3.0),
]


@pytest.mark.parametrize("map_", ALL, ids=lambda map_: repr(map_).split(" at 0x")[0])
@given(exponent=st.floats(0, 6), k=st.integers(4, 40), scale=st.floats(1e-6, 1e6))
def test_every_map_is_positive_finite_and_blind_to_the_basis_of_an_eigenspace(
    map_: SpectralMap, exponent: float, k: int, scale: float
) -> None:
    e = scale * torch.arange(1, k + 1, dtype=torch.float64).div(2).ceil() ** -exponent
    ratio = map_(e)
    assert ratio.shape == e.shape
    assert ratio.dtype == e.dtype
    assert (torch.isfinite(ratio) & (ratio > 0)).all()
    same = (e[1:] - e[:-1]).abs() <= 1e-9 * e[:-1]
    torch.testing.assert_close(ratio[1:][same], ratio[:-1][same], rtol=1e-6, atol=0)
    assert map_.formula
    assert map_.source
    assert map_.bias


@pytest.mark.parametrize("map_", [flatten(2), power(0.3, 2), raise_head(0.7, 2), heat(0.2), sobolev(1.0, rank=2)])
def test_scaling_the_kernel_does_not_change_the_ratio(map_: SpectralMap) -> None:
    torch.testing.assert_close(map_(1e5 * LAMBDA), map_(LAMBDA))


def test_values_of_the_other_maps() -> None:
    assert g(raise_head(0.5)(LAMBDA)) == [128, 16, 2, 0.25]
    assert g(ridge(4.0)(LAMBDA)) == pytest.approx([3.2, 2, 0.8, 0.25 * 4 / 4.25])
    assert g(ridge(0.25, relative=True)(LAMBDA)) == pytest.approx(g(ridge(4.0)(LAMBDA)))
    assert g(ridge(12.0, alpha=0.5)(LAMBDA))[1] == pytest.approx(4 * 0.75**0.5)
    t = 0.5
    x = 16 / LAMBDA
    assert g(heat(t)(LAMBDA)) == pytest.approx((16 * torch.exp(-t * (x - 1))).tolist())
    assert g(bandpass(1, 3, leak=0.5)(LAMBDA)) == [8, 4, 1, 0.125]
    # kappa on the circle: 0, 1, 1, 2, 2
    circle = torch.tensor([9.0, 4, 4, 1, 1], dtype=torch.float64)
    assert sobolev(1.0)(circle).tolist() == pytest.approx([0.2, 0.4, 0.4, 1, 1])
    assert sobolev(1.0, rank=1)(circle).tolist() == pytest.approx([0.5, 1, 1, 1, 1])
    assert sobolev(-1.0, rank=1)(circle).tolist() == pytest.approx([2, 1, 1, 1, 1])


def test_maps_compose() -> None:
    two_roots = chain(power(0.5), power(0.5))(LAMBDA)
    torch.testing.assert_close(two_roots, power(0.75)(LAMBDA))
    torch.testing.assert_close(chain(power(0.5), raise_head(1.0))(LAMBDA), identity()(LAMBDA))
    torch.testing.assert_close(chain(identity(), flatten(2))(LAMBDA), flatten(2)(LAMBDA))
    # The first map turns the order round; the second still sees a descending spectrum.
    turned = chain(custom(lambda e: e**-2), flatten(1))(LAMBDA) * LAMBDA
    torch.testing.assert_close(turned, (1 / LAMBDA).clamp(max=1.0))
    torch.testing.assert_close(clip(flatten(), 0.1, 0.5)(LAMBDA), flatten()(LAMBDA).clamp(0.1, 0.5))


@pytest.mark.parametrize(
    "bad",
    [
        lambda: raise_head(0),
        lambda: ridge(0),
        lambda: ridge(1, alpha=2),
        lambda: heat(0),
        lambda: sobolev(1.0, dimension=0),
        lambda: bandpass(2, 2),
        lambda: bandpass(0.5, 2),
        lambda: bandpass(0, 9)(LAMBDA),
        lambda: bandpass(0, 2, leak=0),
        lambda: clip(identity(), 2, 1),
        lambda: custom(lambda e: -e)(LAMBDA),
        lambda: custom(lambda e: e[:2])(LAMBDA),
        lambda: custom(lambda e: 1)(LAMBDA),
    ],
)
def test_parameters_without_meaning_are_refused(bad: object) -> None:
    with pytest.raises(InputError):
        bad()  # type: ignore[operator]
