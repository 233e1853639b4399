"""Landmarks and the way from them to all points."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spectrain import InputError, SpectrainWarning, Spectrum, choose_landmarks, empirical_ntk
from spectrain.models import mlp
from spectrain.preconditioners import Landmarks, interpolate_grid


def grid(rows: int, columns: int) -> Tensor:
    return torch.cartesian_prod(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns))


@given(rows=st.integers(2, 80), columns=st.integers(2, 80), count=st.integers(4, 500))
def test_grid_landmarks_fill_the_box_within_the_count(rows: int, columns: int, count: int) -> None:
    landmarks = choose_landmarks(grid(rows, columns), min(count, rows * columns - 1), grid_shape=(rows, columns))
    assert landmarks.extension == "interpolate"
    assert len(landmarks.points) == math.prod(shape(landmarks)) <= count
    assert landmarks.points.min() == -1


def shape(landmarks: Landmarks) -> tuple[int, int]:
    assert landmarks.axes is not None
    return len(landmarks.axes[0]), len(landmarks.axes[1])


def test_square_image_gets_a_square_grid() -> None:
    assert shape(choose_landmarks(grid(64, 64), 1024, grid_shape=(64, 64))) == (32, 32)
    assert shape(choose_landmarks(grid(128, 32), 1024, grid_shape=(128, 32))) == (64, 16)
    assert shape(choose_landmarks(grid(1, 90), 40, grid_shape=(1, 90))) == (1, 40)


@pytest.mark.parametrize("part", [slice(None), slice(None, None, 2)])
def test_interpolation_reproduces_cubics_up_to_the_border(part: slice) -> None:
    rows, columns = torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 7)
    fine = grid(33, 25)[part].double()

    def functions(x: Tensor) -> Tensor:
        r, c = x.double().unbind(1)
        return torch.stack([torch.ones_like(r), r + 0.5 * c, r**3 - c**2 * r, c**3], 1)

    values = functions(torch.cartesian_prod(rows, columns))
    torch.testing.assert_close(interpolate_grid(values, (rows, columns), fine), functions(fine), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_interpolation_along_an_axis_of_few_nodes(size: int) -> None:
    rows, columns = torch.linspace(-1, 1, size), torch.linspace(-1, 1, 12)
    values = torch.cartesian_prod(rows, columns)[:, 1:].double()
    at = torch.cartesian_prod(rows, torch.linspace(-1, 1, 30))
    torch.testing.assert_close(
        interpolate_grid(values, (rows, columns), at)[:, 0], at[:, 1].double(), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("extension", ["interpolate", "nystrom"])
def test_extended_modes_are_those_of_the_full_kernel(extension: str) -> None:
    """Leading eigenspaces from a quarter of the points against the dense eigh of the kernel on all of them."""
    torch.manual_seed(0)
    x = grid(24, 24).double()
    network = mlp(2, 1, width=64, depth=2).double()
    landmarks = choose_landmarks(x, 144, extension=extension, grid_shape=(24, 24))
    extended = landmarks.extend(landmarks.spectrum(network, 8), x, network)
    full = Spectrum.from_kernel(empirical_ntk(network, x), rank=8)
    assert extended.eigenvectors.shape == (576, 8)
    overlap = torch.linalg.svdvals(full.eigenvectors[:, :4].T @ extended.eigenvectors)
    assert overlap.min() > 0.98
    torch.testing.assert_close(extended.eigenvalues[:3], full.eigenvalues[:3], rtol=0.15, atol=0)


def test_exact_landmarks_give_the_kernel_of_all_points() -> None:
    x, network = grid(6, 6), mlp(2, 1, width=16, depth=1)
    landmarks = choose_landmarks(x, 36)
    assert landmarks.extension == "exact"
    spectrum = landmarks.spectrum(network, 5)
    assert landmarks.extend(spectrum, x, network) is spectrum


def test_more_landmarks_than_points_warns_and_uses_all() -> None:
    with pytest.warns(SpectrainWarning, match="above the 36 training points"):
        assert len(choose_landmarks(grid(6, 6), 100).points) == 36


def test_scattered_points_take_a_subset_without_touching_the_global_generator() -> None:
    x = torch.rand(50, 5)
    state = torch.get_rng_state()
    landmarks = choose_landmarks(x, 10)
    assert torch.equal(state, torch.get_rng_state())
    assert landmarks.extension == "nystrom"
    assert all(any(torch.equal(point, row) for row in x) for point in landmarks.points)


def test_wrong_extensions_are_refused() -> None:
    with pytest.raises(InputError, match="allowed: auto, interpolate, nystrom, exact"):
        choose_landmarks(grid(4, 4), 4, extension="nystroem")
    with pytest.raises(InputError, match="nystrom for scattered points"):
        choose_landmarks(torch.rand(20, 3), 4, extension="interpolate")


def test_a_kernel_that_is_not_finite_is_refused() -> None:
    network = mlp(2, 1, width=8, depth=1)
    torch.nn.init.constant_(next(network.parameters()), float("nan"))
    with pytest.raises(InputError):
        choose_landmarks(grid(4, 4), 16).spectrum(network, 3)
