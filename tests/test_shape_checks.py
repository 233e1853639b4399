"""The shape checks of the tests are on, and let a function's own error come first."""

import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from shape_checks import check
from spectrain import spectral_maps, spectrum
from spectrain.errors import InputError


@jaxtyped(typechecker=check)
def add(a: Float[Tensor, "n k"], b: Float[Tensor, "n k"], scale: float = 1.0) -> Float[Tensor, "n k"]:
    if a.numel() == 0:
        raise InputError("empty")
    return a[: b.shape[0]] + scale * b


def test_shapes_that_agree_pass() -> None:
    assert add(torch.ones(3, 2), torch.ones(3, 2), 2).shape == (3, 2)


@pytest.mark.parametrize("shapes", [((3, 2), (1, 2)), ((3,), (3,))])
def test_shapes_that_do_not_agree_are_found(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(TypeCheckError):
        add(torch.ones(shapes[0]), torch.ones(shapes[1]))


def test_a_functions_own_error_comes_first() -> None:
    with pytest.raises(InputError):
        add(torch.ones(0), torch.ones(3))


def test_the_hook_reached_the_mathematics() -> None:
    for function in (spectral_maps.power.__call__, spectrum.Spectrum.ratio):
        assert hasattr(function, "__wrapped__"), function
