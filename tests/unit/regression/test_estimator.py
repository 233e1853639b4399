"""`KernelRegression` against scikit-learn's KernelRidge and brute force."""

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from spectrain.errors import InputError
from spectrain.regression import KernelRegression, ModifiedSpectrumKernel, ridge_path
from spectrain.regression.callables import rbf
from spectrain.spectral_maps import flatten
from spectrain.spectrum import Spectrum

rng = np.random.default_rng(0)
X = rng.normal(size=(50, 3))
Y = np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2]], 1) + 0.1 * rng.normal(size=(50, 2))
NEW = rng.normal(size=(9, 3))


@parametrize_with_checks([KernelRegression(), KernelRegression(ridge=1e-3), KernelRegression(ridge="loo")])
@pytest.mark.filterwarnings("ignore")
def test_is_a_scikit_learn_estimator(estimator: KernelRegression, check: object) -> None:
    check(estimator)  # type: ignore[operator]


@pytest.mark.parametrize("y", [Y, Y[:, 0]])
def test_equals_scikit_learns_kernel_ridge(y: np.ndarray) -> None:
    ours = KernelRegression(ridge=0.01).fit(X, y)
    theirs = KernelRidge(alpha=50 * 0.01, kernel="rbf").fit(X, y)
    np.testing.assert_allclose(ours.predict(NEW), theirs.predict(NEW), atol=1e-9)
    np.testing.assert_allclose(ours.dual_coef_, theirs.dual_coef_, atol=1e-9)


def test_without_ridge_it_interpolates() -> None:
    np.testing.assert_allclose(KernelRegression().fit(X, Y).predict(X), Y, atol=1e-8)


def test_without_ridge_and_with_repeated_points_it_takes_the_least_norm_solution() -> None:
    twice = np.concatenate([X, X])
    estimator = KernelRegression().fit(twice, np.concatenate([Y, Y + 1]))
    np.testing.assert_allclose(estimator.predict(X), Y + 0.5, atol=1e-6)
    assert np.isfinite(estimator.dual_coef_).all()


def test_a_linear_kernel_with_a_small_ridge_after_a_failed_factor_is_still_right() -> None:
    y = X @ np.array([1.0, -2.0, 0.5])
    estimator = KernelRegression(kernel=lambda a, b: a @ b.T).fit(X, y)
    np.testing.assert_allclose(estimator.predict(NEW), NEW @ np.array([1.0, -2.0, 0.5]), atol=1e-9)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = KernelRegression(ridge=0.01).fit(X, Y).predict(NEW)
    monkeypatch.setattr("spectrain.regression.estimator._ROWS", 7)
    np.testing.assert_allclose(KernelRegression(ridge=0.01).fit(X, Y).predict(NEW), whole, atol=1e-12)


def test_tensors_in_tensors_out() -> None:
    x, y, new = (torch.from_numpy(a).float() for a in (X, Y, NEW))
    f = KernelRegression(rbf, ridge=0.01).fit(x, y).predict(new)
    assert isinstance(f, torch.Tensor)
    assert f.dtype == torch.float32
    np.testing.assert_allclose(f.numpy(), KernelRegression(rbf, ridge=0.01).fit(X, Y).predict(NEW), atol=1e-4)


def test_regression_with_a_modified_kernel_interpolates_too() -> None:
    x = torch.from_numpy(X)
    kg = ModifiedSpectrumKernel(rbf, x, flatten(10))
    np.testing.assert_allclose(KernelRegression(kg).fit(X, Y).predict(X), Y, atol=1e-7)


def test_lives_in_pipelines_searches_and_cross_validation() -> None:
    pipeline = make_pipeline(StandardScaler(), KernelRegression())
    search = GridSearchCV(pipeline, {"kernelregression__ridge": [1e-6, 1e-2, 10.0]}, cv=3).fit(X, Y)
    assert search.best_params_["kernelregression__ridge"] == 1e-2
    assert len(cross_val_score(pipeline, X, Y, cv=3)) == 3


def test_leave_one_out_is_what_leaving_one_out_gives() -> None:
    ridges = [1e-4, 1e-2, 1.0]
    spectrum = Spectrum.from_kernel(rbf(torch.from_numpy(X), torch.from_numpy(X)))
    path = ridge_path(spectrum, torch.from_numpy(Y), ridges)
    for j, rho in enumerate(ridges):
        errors = []
        for i in range(50):
            keep = np.arange(50) != i
            # n rho is what is held fixed.
            f = KernelRegression(ridge=rho * 50 / 49).fit(X[keep], Y[keep]).predict(X[i : i + 1])
            errors.append(((f - Y[i]) ** 2).sum())
        assert float(path.loo[j]) == pytest.approx(np.mean(errors), rel=1e-6)
        f = KernelRegression(ridge=rho).fit(X, Y).predict(X)
        assert float(path.train[j]) == pytest.approx(((f - Y) ** 2).sum() / 50, rel=1e-6)
        K = rbf(torch.from_numpy(X), torch.from_numpy(X))
        H = K @ torch.linalg.inv(K + 50 * rho * torch.eye(50, dtype=K.dtype))
        assert float(path.effective_dimension[j]) == pytest.approx(float(H.trace()), rel=1e-6)
        expected_gcv = ((f - Y) ** 2).sum() / 50 / (1 - float(H.trace()) / 50) ** 2
        assert float(path.gcv[j]) == pytest.approx(expected_gcv, rel=1e-6)


@pytest.mark.parametrize("criterion", ["loo", "gcv"])
def test_a_chosen_ridge_is_the_best_of_its_path(criterion: str) -> None:
    estimator = KernelRegression(ridge=criterion).fit(X, Y)
    errors = getattr(estimator.path_, criterion)
    assert float(errors.min()) == float(errors[estimator.path_.ridges == estimator.ridge_])
    same = KernelRegression(ridge=estimator.ridge_).fit(X, Y)
    np.testing.assert_allclose(estimator.predict(NEW), same.predict(NEW), atol=1e-6)


@pytest.mark.parametrize("ridge", [-1.0, float("nan"), "best"])
def test_bad_ridges_are_refused(ridge: object) -> None:
    with pytest.raises(InputError, match="ridge"):
        KernelRegression(ridge=ridge).fit(X, Y)


def test_one_point_is_refused() -> None:
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        KernelRegression().fit(np.zeros((1, 2)), [1.0])


def test_bad_paths_are_refused() -> None:
    s = Spectrum.from_kernel(rbf(torch.from_numpy(X), torch.from_numpy(X)))
    with pytest.raises(InputError, match="ridges"):
        ridge_path(s, torch.zeros(50), [0.0])
    with pytest.raises(InputError, match="y has shape"):
        ridge_path(s, torch.zeros(49))
    with pytest.raises(InputError, match="all 50 modes"):
        ridge_path(Spectrum.from_kernel(rbf(torch.from_numpy(X), torch.from_numpy(X)), 5), torch.zeros(50))
