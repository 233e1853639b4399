"""Landmarks and the way from them to all points."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spectrain import InputError, SpectrainWarning, Spectrum, choose_landmarks, empirical_ntk
from spectrain.models import mlp
from spectrain.preconditioners import Landmarks, interpolate_grid, orthonormal_columns
from spectrain.preconditioners import landmarks as landmarks_module
from spectrain.preconditioners.interpolation import NEIGHBOURS, GridInterpolator, ScatteredInterpolator
from spectrain.preconditioners.placement import farthest_points, leverage_points


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


@pytest.mark.parametrize(
    ("extension", "placement"),
    [("interpolate", "grid"), ("interpolate", "farthest"), ("nystrom", "random"), ("nystrom", "leverage")],
)
def test_extended_modes_are_those_of_the_full_kernel(extension: str, placement: str) -> None:
    """Leading eigenspaces from a quarter of the points against the dense eigh of the kernel on all of them."""
    torch.manual_seed(0)
    x = grid(24, 24).double()
    network = mlp(2, 1, width=64, depth=2).double()
    landmarks = choose_landmarks(x, 144, extension=extension, landmarks=placement, grid_shape=(24, 24))
    extended = landmarks.extend(landmarks.spectrum(network, 8), x, network)
    full = Spectrum.from_kernel(empirical_ntk(network, x), rank=8)
    assert extended.eigenvectors.shape == (576, 8)
    overlap = torch.linalg.svdvals(full.eigenvectors[:, :4].T @ extended.eigenvectors)
    assert overlap.min() > 0.98
    if placement != "leverage":  # eigenvalues are those of the landmarks' own density
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


def test_points_of_few_dimensions_are_interpolated_and_others_are_not() -> None:
    def extension(x: object) -> str:
        return choose_landmarks(x, 10).extension

    assert [extension(torch.rand(50, d)) for d in (1, 2, 4, 5)] == ["interpolate"] * 3 + ["nystrom"]
    assert extension(torch.rand(50, 3, 2)) == "nystrom"
    assert extension(torch.randint(9, (50, 3))) == "nystrom"
    assert extension((torch.rand(50, 2), torch.rand(50, 3))) == "nystrom"


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_scattered_interpolation_is_exact_at_landmarks_and_for_constants(d: int) -> None:
    x = torch.rand(300, d, dtype=torch.float64)
    values = torch.rand(80, 3, dtype=torch.float64)
    found = ScatteredInterpolator(x[:80], x)(values)
    torch.testing.assert_close(found[:80], values, rtol=0, atol=1e-10)
    ones = ScatteredInterpolator(x[:80], x)(torch.ones(80, 1, dtype=torch.float64))
    torch.testing.assert_close(ones, torch.ones_like(ones), rtol=0, atol=1e-10)


def test_scattered_interpolation_solves_the_radial_system_of_the_nearest_landmarks() -> None:
    generator = torch.Generator().manual_seed(0)
    nodes, x = (torch.rand(size, 2, dtype=torch.float64, generator=generator) for size in (40, 1))
    near = torch.cdist(x, nodes)[0].argsort()[:NEIGHBOURS]
    A = torch.ones(NEIGHBOURS + 1, NEIGHBOURS + 1, dtype=torch.float64)
    A[:-1, :-1], A[-1, -1] = -torch.cdist(nodes[near], nodes[near]), 0
    b = torch.cat([-torch.cdist(x, nodes[near])[0], torch.ones(1)])
    expected = torch.zeros(1, 40, dtype=torch.float64)
    expected[0, near] = torch.linalg.inv(A)[:-1] @ b
    found = ScatteredInterpolator(nodes, x)(torch.eye(40, dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("part", [slice(None), slice(None, None, 3), slice(7)])
def test_products_with_an_interpolators_gram_matrix_are_those_of_its_weights(part: slice) -> None:
    axes = (torch.linspace(-1, 1, 5), torch.linspace(-1, 1, 4))
    x, nodes = grid(9, 8)[part], torch.cartesian_prod(*axes)
    for W in (GridInterpolator(axes, x), ScatteredInterpolator(nodes, x), GridInterpolator(axes, x.repeat(2, 1))):
        weights = W(torch.eye(20, dtype=torch.float64))
        torch.testing.assert_close(W.gram_times(torch.eye(20).double()), weights.T @ weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize("points", ["grid", "part of a grid", "scattered", "few"])
@pytest.mark.parametrize("outputs", [1, 2])
def test_interpolated_modes_are_gram_schmidt_of_what_is_interpolated(points: str, outputs: int) -> None:
    """Orthonormalising at the landmarks is orthonormalising at the points; fewer points than modes keep as many."""
    x = {"grid": grid(20, 20), "part of a grid": grid(20, 20)[::3], "few": grid(20, 20)[:4]}.get(points)
    x = torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) if x is None else x
    whole = grid(20, 20) if points != "scattered" else x
    landmarks = choose_landmarks(whole, 100, grid_shape=None if points == "scattered" else (20, 20))
    r, c = landmarks.points.double().unbind(1)
    waves = torch.stack([torch.cos(a * r + b * c) for a in (0, 2, 4) for b in (1, 3)], 1)
    values = torch.stack([waves, waves.roll(1, 1)][:outputs], 1).flatten(0, 1)
    found = landmarks.interpolated_modes(values, x)
    at_points = landmarks.interpolate(values.reshape(landmarks.count, -1), x).reshape(-1, 6)
    torch.testing.assert_close(found, orthonormal_columns(at_points), rtol=0, atol=1e-9)
    in_single = landmarks.interpolated_modes(values, x, torch.float32)
    assert in_single.dtype == torch.float32
    torch.testing.assert_close(in_single.double(), found, rtol=0, atol=1e-4)


def test_weights_are_computed_once_for_the_same_points(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for name in ("GridInterpolator", "ScatteredInterpolator"):
        original = getattr(landmarks_module, name)
        monkeypatch.setattr(landmarks_module, name, lambda *a, make=original: made.append(1) or make(*a))
    x = grid(12, 12)
    for grid_shape in ((12, 12), None):
        landmarks = choose_landmarks(x, 36, grid_shape=grid_shape)
        for _ in range(3):
            landmarks.interpolate(torch.rand(36, 2), x)
        landmarks.interpolate(torch.rand(36, 2), x[:50])
        assert len(made) == 2
        made.clear()


def test_weights_follow_points_that_change_in_place() -> None:
    x = torch.rand(60, 2)
    landmarks = choose_landmarks(x, 20)
    before = landmarks.interpolate(landmarks.points, x)
    x.mul_(0.5)
    assert not torch.equal(landmarks.interpolate(landmarks.points, x), before)


def test_farthest_points_are_greedy_k_centers() -> None:
    x = torch.rand(60, 3, generator=torch.Generator().manual_seed(1))
    chosen = farthest_points(x, 12, torch.Generator().manual_seed(0))
    assert len(chosen.unique()) == 12
    for j in range(1, 12):  # each one is as far from those before it as any point is
        distances = torch.cdist(x, x[chosen[:j]]).min(1).values
        assert distances[chosen[j]] >= distances.max() - 1e-6


def test_farthest_points_stop_where_points_repeat() -> None:
    x = torch.rand(5, 2).repeat(10, 1)
    landmarks = choose_landmarks(x, 20)
    assert landmarks.count == 5
    assert torch.isfinite(landmarks.interpolate(torch.rand(5, 2), x)).all()


def test_leverage_prefers_the_lone_points() -> None:
    generator = torch.Generator().manual_seed(0)
    crowd = torch.randn(570, 3, generator=generator) * 0.05 + torch.tensor([1.0, 0, 0])
    alone = torch.randn(30, 3, generator=generator) * 3
    chosen = leverage_points(torch.cat([crowd, alone]), 60, generator)
    assert len(chosen.unique()) == 60
    assert int((chosen >= 570).sum()) > 10  # 3 on average in a uniform sample


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
    with pytest.raises(InputError, match="nystrom for images"):
        choose_landmarks(torch.rand(20, 3, 2), 4, extension="interpolate")
    with pytest.raises(InputError, match="allowed: auto, grid, random, farthest, leverage"):
        choose_landmarks(grid(4, 4), 4, landmarks="kmeans")
    with pytest.raises(InputError, match="farthest for scattered points"):
        choose_landmarks(grid(4, 4), 4, landmarks="grid")
    with pytest.raises(InputError, match=r"landmarks=random"):
        choose_landmarks({"tokens": torch.zeros(20, 3, dtype=torch.long)}, 4, landmarks="farthest")
    with pytest.warns(SpectrainWarning, match="in 6 dimensions"):
        choose_landmarks(torch.rand(20, 6), 4, extension="interpolate")


def test_a_kernel_that_is_not_finite_is_refused() -> None:
    network = mlp(2, 1, width=8, depth=1)
    torch.nn.init.constant_(next(network.parameters()), float("nan"))
    with pytest.raises(InputError):
        choose_landmarks(grid(4, 4), 16).spectrum(network, 3)


def test_a_rank_without_rows_of_the_full_kernel_has_a_matrix_of_none() -> None:
    assert landmarks_module._as_matrix(torch.zeros(0, 5, 2, 2)).shape == (0, 10)
