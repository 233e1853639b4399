"""Predicted dynamics against descent that is really run."""

import math

import pytest
import torch
from torch import Tensor

from spectrain.errors import InputError
from spectrain.spectral_maps import SpectralMap, flatten, identity, power
from spectrain.spectrum import Spectrum
from spectrain.spectrum.dynamics import decay, largest_step_size, predict_residual, steps_to_fit, steps_to_tolerance

N = 30
J = torch.randn(N, 80, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ torch.diag(
    torch.arange(1, 81, dtype=torch.float64) ** -0.7
)
SPECTRUM = Spectrum.from_kernel(J @ J.T)
Y = torch.randn(N, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
MAPS: list[SpectralMap] = [identity(), flatten(4), power(0.5, 8)]


def train(g: SpectralMap, eta: float, steps: int, momentum: float = 0.0, batch: int | None = None) -> Tensor:
    """w <- w - eta J^T S r / n on the linearised model, in weight space; returns the residual."""
    ratio = SPECTRUM.ratio(g)
    V = SPECTRUM.eigenvectors
    S = torch.eye(N, dtype=J.dtype) - (V * (1 - ratio)) @ V.T
    w = torch.zeros(80, 2, dtype=J.dtype)
    velocity = torch.zeros_like(w)
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        r = J @ w - Y
        if batch is not None:
            chosen = torch.randperm(N, generator=generator)[:batch]
            mask = torch.zeros(N, 1, dtype=J.dtype)
            mask[chosen] = N / batch
            r = mask * r
        velocity = momentum * velocity - eta * J.T @ (S @ r) / N
        w = w + velocity
    return J @ w - Y


@pytest.mark.parametrize("g", MAPS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_prediction_is_what_training_does(g: SpectralMap, momentum: float) -> None:
    eta = 0.45 * largest_step_size(SPECTRUM, g)
    predicted = predict_residual(SPECTRUM, -Y, g, eta, [0, 1, 2, 40], momentum)
    assert predicted.shape == (4, N, 2)
    for j, t in enumerate([0, 1, 2, 40]):
        torch.testing.assert_close(predicted[j], train(g, eta, t, momentum), rtol=1e-8, atol=1e-9)


def test_minibatches_follow_it_on_average() -> None:
    eta = 0.02 * largest_step_size(SPECTRUM, identity())
    predicted = predict_residual(SPECTRUM, -Y, None, eta, [50])[0]
    measured = train(identity(), eta, 50, batch=15)
    assert float((measured - predicted).norm() / predicted.norm()) < 0.05


def test_what_is_not_held_stands_still() -> None:
    few = Spectrum.from_kernel(J @ J.T, 3)
    r = Y[:, 0]
    after = predict_residual(few, r, None, 1 / float(few.eigenvalues[0]), [10**6])[0]
    V = few.eigenvectors
    torch.testing.assert_close(after, r - V @ (V.T @ r))


def test_steps_to_tolerance_are_the_first_at_which_it_holds() -> None:
    eta = 0.4 * largest_step_size(SPECTRUM, flatten(5))
    steps = steps_to_tolerance(SPECTRUM, flatten(5), eta, 0.1)
    for i, t in enumerate(steps.int().tolist()):
        after, before = decay(SPECTRUM, flatten(5), eta, [t, t - 1])[:, i].abs().tolist()
        assert after <= 0.1 * (1 + 1e-9)
        assert before > 0.1 or t == 1
    torch.testing.assert_close(steps[:5], steps[:1].expand(5))


def test_gradient_descent_needs_lambda_1_over_lambda_i_times_more() -> None:
    eta = 0.01 / float(SPECTRUM.eigenvalues[0])
    steps = steps_to_tolerance(SPECTRUM, identity(), eta, 0.05)
    ratio = SPECTRUM.eigenvalues[0] / SPECTRUM.eigenvalues
    torch.testing.assert_close(steps / steps[0], ratio, rtol=0.01, atol=0)


def test_momentum_has_the_rate_of_its_roots_and_too_large_a_step_never_arrives() -> None:
    g, beta = identity(), 0.8
    eta = 0.5 * largest_step_size(SPECTRUM, g)
    steps = steps_to_tolerance(SPECTRUM, g, eta, 1e-6, beta)
    a = decay(SPECTRUM, g, eta, [int(2 * steps[-1])], beta)[0]
    assert abs(float(a[-1])) < 1e-10
    too_large = steps_to_tolerance(SPECTRUM, g, 1.01 * largest_step_size(SPECTRUM, g, beta), 0.1, beta)
    assert math.isinf(float(too_large[0]))
    assert math.isfinite(
        float(steps_to_tolerance(SPECTRUM, g, 0.99 * largest_step_size(SPECTRUM, g, beta), 0.1, beta)[0])
    )


def test_every_preconditioner_ends_in_the_same_predictor() -> None:
    """f_inf = f_0 + k(x, X) K^-1 (y - f_0) for every S > 0: here S = I, truncated, K^-1 and random, in weight space."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(20, 40, generator=generator, dtype=torch.float64)
    new = torch.randn(5, 40, generator=generator, dtype=torch.float64)
    y = torch.randn(20, 1, generator=generator, dtype=torch.float64)
    K = features @ features.T
    V = Spectrum.from_kernel(K).eigenvectors
    truncated = torch.eye(20, dtype=K.dtype) - (V[:, :5] * 0.6) @ V[:, :5].T
    A = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    expected = new @ features.T @ torch.linalg.solve(K, y)
    for S in (torch.eye(20, dtype=K.dtype), truncated, torch.linalg.inv(K), A @ A.T / 20 + torch.eye(20)):
        eta = 1.9 / float(torch.linalg.eigvals(K @ S).real.max())
        M = torch.linalg.matrix_power(torch.eye(20, dtype=K.dtype) - eta * K @ S, 2**17)
        # The sum of all updates, w = J^T S sum_t eta (I - eta K S)^t y = J^T S (K S)^-1 (I - M) y.
        w = features.T @ S @ torch.linalg.solve(K @ S, y - M @ y)
        torch.testing.assert_close(new @ w, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: predict_residual(SPECTRUM, Y[:5], None, 0.1, [1]),
        lambda: predict_residual(SPECTRUM, Y, None, 0.0, [1]),
        lambda: predict_residual(SPECTRUM, Y, None, 0.1, [-1]),
        lambda: predict_residual(SPECTRUM, Y, None, 0.1, [1], 1.0),
        lambda: steps_to_tolerance(SPECTRUM, None, 0.1, 1.5),
    ],
)
def test_bad_input_is_refused(bad: object) -> None:
    with pytest.raises(InputError):
        bad()  # type: ignore[operator]


@pytest.mark.parametrize("g", MAPS)
def test_steps_to_fit_are_the_first_at_which_the_predicted_residual_is_small_enough(g: SpectralMap) -> None:
    eta = 0.9 * largest_step_size(SPECTRUM, g)
    steps = steps_to_fit(SPECTRUM, Y, g, eta, 0.3)
    before, after = predict_residual(SPECTRUM, Y, g, eta, [int(steps) - 1, int(steps)]).flatten(1).norm(dim=1)
    assert float(after) <= 0.3 * float(Y.norm()) < float(before)


def test_steps_to_fit_one_mode_are_those_of_that_mode() -> None:
    eta = 1 / float(SPECTRUM.eigenvalues[0])
    expected = steps_to_tolerance(SPECTRUM, None, eta, 0.05)
    for i in (1, 7):
        assert steps_to_fit(SPECTRUM, SPECTRUM.eigenvectors[:, i], None, eta, 0.05) == float(expected[i])


def test_what_lies_outside_the_modes_is_never_fitted_and_unstable_steps_are_refused() -> None:
    head = Spectrum.from_kernel(J @ J.T, 5)
    assert steps_to_fit(head, Y, None, 1 / float(head.eigenvalues[0]), 0.05) == math.inf
    with pytest.raises(InputError, match="at most 2 / g_max"):
        steps_to_fit(SPECTRUM, Y, None, 2.1 / float(SPECTRUM.eigenvalues[0]), 0.05)
    with pytest.raises(InputError, match="tolerance=1"):
        steps_to_fit(SPECTRUM, Y, None, 0.1, 1.0)
