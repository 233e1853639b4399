"""Spectral maps against their formulas."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectrain.errors import InputError
from spectrain.spectral_maps import flatten, identity, power

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
