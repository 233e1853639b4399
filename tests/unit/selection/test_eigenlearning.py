"""The theory's prediction against kernel regression that is really done, on Gaussian features."""

import pytest
import torch

from spectrain.errors import InputError
from spectrain.selection import eigenlearning


@pytest.mark.parametrize(("ridge", "noise"), [(0.0, 0.0), (1e-2, 0.0), (1e-2, 0.5), (0.0, 0.5)])
def test_predicts_the_mean_error_of_kernel_regression(ridge: float, noise: float) -> None:
    N, n, trials = 300, 40, 60
    lam = torch.arange(1, N + 1, dtype=torch.float64) ** -1.5
    coefficients = torch.arange(1, N + 1, dtype=torch.float64) ** -1.0
    predicted = eigenlearning(lam, coefficients.square(), n, ridge, noise)
    generator = torch.Generator().manual_seed(0)
    test, train = [], []
    for _ in range(trials):
        phi = torch.randn(n + 400, N, generator=generator, dtype=torch.float64)
        y = phi @ coefficients + noise * torch.randn(n + 400, generator=generator, dtype=torch.float64)
        K = (phi * lam) @ phi[:n].T
        f = K @ torch.linalg.solve(K[:n] + n * ridge * torch.eye(n, dtype=torch.float64), y[:n])
        train.append((f[:n] - y[:n]).square().mean())
        test.append((f[n:] - y[n:]).square().mean())
    assert predicted.test_error == pytest.approx(
        float(torch.stack(test).mean()), rel=0.1
    )  # the theory's own error is O(1/n)
    assert predicted.train_error == pytest.approx(float(torch.stack(train).mean()), rel=0.1, abs=1e-12)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_learnability_is_conserved(ridge: float) -> None:
    lam = torch.arange(1, 200, dtype=torch.float64) ** -2
    e = eigenlearning(lam, torch.ones_like(lam), 20, ridge)
    assert float(e.learnability.sum()) + 20 * ridge / e.kappa == pytest.approx(20)
    assert ((e.learnability > 0) & (e.learnability < 1)).all()


def test_more_points_mean_less_error_and_scale_means_nothing_without_a_ridge() -> None:
    lam = torch.arange(1, 200, dtype=torch.float64) ** -2
    errors = [eigenlearning(lam, lam, n).test_error for n in (5, 20, 80)]
    assert errors[0] > errors[1] > errors[2]
    assert eigenlearning(1e6 * lam, lam, 20).test_error == pytest.approx(errors[1])


def test_bad_input_is_refused() -> None:
    lam = torch.ones(5)
    with pytest.raises(InputError, match="without a ridge"):
        eigenlearning(lam, lam, 5)
    for arguments in ((lam, lam[:2], 3), (lam, lam, 0), (lam, lam, 3, -1.0), (lam, lam, 3, 0.0, -1.0)):
        with pytest.raises(InputError):
            eigenlearning(*arguments)
