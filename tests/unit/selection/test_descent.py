"""The filters against descent that is really run, step by step."""

import math

import pytest
import torch
from torch import Tensor

from spectrain.regression import KernelRegression, ridge_path
from spectrain.regression.callables import rbf
from spectrain.selection.descent import (
    closed_form_errors,
    differences,
    distinct,
    filters,
    held_out_errors,
    predict_descent,
    split_folds,
    stratified_parts,
)
from spectrain.spectral_maps import SpectralMap, flatten, identity, power
from spectrain.spectrum import Spectrum

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, 2, generator=GENERATOR, dtype=torch.float64)
Z = torch.randn(7, 2, generator=GENERATOR, dtype=torch.float64)
Y = torch.stack([torch.sin(2 * X[:, 0]), X[:, 1]], 1) + 1
K = rbf(X, X)
MAPS: list[SpectralMap] = [identity(), flatten(5), power(0.5, 9)]


def run(K: Tensor, cross: Tensor, y: Tensor, g: SpectralMap, steps: int) -> Tensor:
    """w <- w - eta J^T S r, seen at the training points and at the others."""
    n = len(K)
    s = Spectrum.from_kernel(K)
    ratio = s.ratio(g)
    S = torch.eye(n, dtype=K.dtype) - (s.eigenvectors * (1 - ratio)) @ s.eigenvectors.T
    eta = 1 / float((ratio * s.eigenvalues).max())
    f, other = y.mean(0).expand_as(y).clone(), y.mean(0).expand(len(cross), y.shape[1]).clone()
    for _ in range(steps):
        c = S @ (f - y) / n
        f, other = f - eta * K @ c, other - eta * cross @ c
    return other


@pytest.mark.parametrize("g", MAPS)
def test_prediction_is_what_the_descent_gives(g: SpectralMap) -> None:
    predicted = predict_descent(Spectrum.from_kernel(K), rbf(Z, X), Y, [g], [1, 7, 50])
    for j, steps in enumerate([1, 7, 50]):
        torch.testing.assert_close(predicted[0, j], run(K, rbf(Z, X), Y, g, steps), rtol=1e-6, atol=1e-8)


def test_filters_go_from_nothing_to_everything_and_flat_modes_together() -> None:
    lam = torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    f = filters(lam, identity()(lam), [0, 1, 10, 10**7])
    torch.testing.assert_close(f[0], torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(f[1], lam / 4)
    assert (f[2, :-1] > f[2, 1:]).all()
    torch.testing.assert_close(f[3], torch.ones(4, dtype=torch.float64))
    flat = filters(lam, flatten(2)(lam), [3])[0]
    torch.testing.assert_close(flat[:3], flat[:1].expand(3))


def test_a_long_descent_ends_where_kernel_regression_is_for_every_map() -> None:
    K2, cross = K + 0.1 * torch.eye(40), rbf(Z, X)
    f = predict_descent(Spectrum.from_kernel(K2), cross, Y, MAPS, [10**7])
    centred = KernelRegression(lambda a, b: rbf(a, b) + 0.1 * (a[:, None] == b[None]).all(-1))
    expected = centred.fit(X, Y - Y.mean(0)).predict(Z) + Y.mean(0)
    for j in range(len(MAPS)):
        torch.testing.assert_close(f[j, 0], expected, rtol=1e-9, atol=1e-10)


def test_held_out_errors_are_those_of_training_without_the_fold() -> None:
    errors, _ = held_out_errors(split_folds(K, Y, 4), Y, MAPS, [1, 20])
    assert errors.shape == (3, 2, 40)
    held = stratified_parts(Y, 4, seed=0)[1]
    rest = torch.tensor([i for i in range(40) if i not in held.tolist()])
    f = run(K[rest][:, rest], K[held][:, rest], Y[rest], MAPS[1], 20)
    torch.testing.assert_close(errors[1, 1, held], (f - Y[held]).square().sum(1), rtol=1e-6, atol=1e-8)


def test_several_draws_of_the_folds_are_averaged() -> None:
    both = split_folds(K, Y, 4, draws=2)
    (first, near), (second, far) = (held_out_errors(part, Y, MAPS, [3]) for part in (both[:4], both[4:]))
    assert not first.allclose(second)
    errors, apart = held_out_errors(both, Y, MAPS, [3])
    torch.testing.assert_close(errors, (first + second) / 2)
    torch.testing.assert_close(apart, ((near.square() + far.square()) / 2).sqrt())
    torch.testing.assert_close(held_out_errors(split_folds(K, Y, 4), Y, MAPS, [3])[0], first)


def test_a_pace_is_what_a_step_of_its_map_is_worth() -> None:
    s, cross = Spectrum.from_kernel(K), rbf(Z, X)
    slow = predict_descent(s, cross, Y, MAPS, [10, 30], [1.0, 0.5, 0.1])
    for j, worth in enumerate([(10, 30), (5, 15), (1, 3)]):
        torch.testing.assert_close(slow[j], predict_descent(s, cross, Y, [MAPS[j]], worth)[0])
    for paced, plain in zip(
        closed_form_errors(s, Y, MAPS[1:], [10], [0.5, 0.1]), closed_form_errors(s, Y, MAPS[1:], [1, 5]), strict=True
    ):
        torch.testing.assert_close(paced[:, 0], plain.flip(1).diagonal())


def test_differences_are_those_of_the_held_out_predictions_in_units_of_the_targets() -> None:
    f = predict_descent(Spectrum.from_kernel(K), rbf(Z, X), Y, MAPS, [2, 9]).flatten(0, 1)
    apart = differences(f, Y)
    deviation = (Y - Y.mean(0)).square().sum(1).mean().sqrt()
    assert float(apart[1, 4]) == pytest.approx(float((f[1] - f[4]).square().sum(1).mean().sqrt() / deviation))
    torch.testing.assert_close(differences(1000 * f - 7, 1000 * Y - 7), apart)
    folds = split_folds(K, Y, 4)
    parts = [differences(predict_descent(p.spectrum, p.cross, Y[p.others], MAPS, [2]).flatten(0, 1), Y) for p in folds]
    torch.testing.assert_close(
        held_out_errors(folds, Y, MAPS, [2])[1], torch.stack(parts).square().mean(0).sqrt()
    )  # parts of one size


def test_of_one_predictor_under_several_names_the_first_stands() -> None:
    at = torch.tensor([0.0, 0.9, 1.8, 0.1])
    apart = (at[:, None] - at).abs()
    assert distinct(apart, [3, 0, 1, 2], 0.05) == {j: j for j in range(4)}
    assert distinct(apart, [3, 0, 1, 2], 0.85) == {3: 3, 0: 3, 1: 3, 2: 2}
    # What stands for another is never stood for itself: 1 and 2 are close, but 1 is gone.
    assert distinct(apart, [3, 0, 1, 2], 1.0) == {3: 3, 0: 3, 1: 3, 2: 2}
    assert distinct(apart * math.nan, [0, 1, 2, 3], 1.0) == {j: j for j in range(4)}


@pytest.mark.parametrize("count", [4, 7, 40, 100])
def test_every_point_is_in_one_part_and_the_parts_are_of_one_size(count: int) -> None:
    parts = stratified_parts(Y, count, seed=1)
    assert torch.cat(parts).sort().values.tolist() == list(range(40))
    assert {len(part) for part in parts} <= {40 // min(count, 40), 40 // min(count, 40) + 1}
    assert not torch.equal(parts[0], stratified_parts(Y, count, seed=2)[0])


def test_targets_are_spread_alike_over_the_parts() -> None:
    y = torch.cat([torch.zeros(30), torch.ones(10)])[torch.randperm(40, generator=GENERATOR)].double()
    classes = torch.stack([y, 1 - y], 1)
    assert [float(classes[part, 0].sum()) for part in stratified_parts(classes, 10, seed=0)] == [1.0] * 10
    line = torch.arange(40, dtype=torch.float64)[:, None]
    for part in stratified_parts(-line, 4, seed=0):
        assert (part.sort().values // 4).tolist() == list(range(10))


def test_closed_forms_are_those_of_a_linear_smoother() -> None:
    s = Spectrum.from_kernel(K)
    loo, gcv = closed_form_errors(s, Y, MAPS, [3])
    lam = s.eigenvalues.clamp(min=1e-18)
    centred = Y - Y.mean(0)
    for j, g in enumerate(MAPS):
        H = (s.eigenvectors * filters(lam, s.ratio(g), [3])[0]) @ s.eigenvectors.T
        r = centred - H @ centred
        assert float(loo[j, 0]) == pytest.approx(float((r / (1 - H.diagonal())[:, None]).square().sum() / 40), rel=1e-6)
        assert float(gcv[j, 0]) == pytest.approx(float(r.square().sum() / 40 / (1 - H.trace() / 40) ** 2), rel=1e-6)


def test_for_a_ridge_the_same_formula_is_exact() -> None:
    s = Spectrum.from_kernel(K)
    path = ridge_path(s, Y, [0.01])
    H = (s.eigenvectors * (s.eigenvalues / (s.eigenvalues + 0.01))) @ s.eigenvectors.T
    r = Y - H @ Y
    assert float(path.loo[0]) == pytest.approx(float((r / (1 - H.diagonal())[:, None]).square().sum() / 40))
