"""Lanczos, operators and densities against dense eigh."""

import math

import pytest
import torch

from spectrain.errors import InputError
from spectrain.kernels import NTKOperator, empirical_ntk
from spectrain.spectrum import Operator, Spectrum, spectral_density
from spectrain.spectrum.lanczos import apply_function, lanczos_top_k, tridiagonalise

N = 300
Q = torch.linalg.qr(torch.randn(N, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
LAMBDA = torch.arange(1, N + 1, dtype=torch.float64) ** -1.0
K = N * (Q * LAMBDA) @ Q.T


def test_tridiagonal_matrix_is_the_projection() -> None:
    alpha, beta, V = tridiagonalise(K, torch.ones(N, dtype=torch.float64), 30)
    T = torch.diag(alpha) + torch.diag(beta[:-1], 1) + torch.diag(beta[:-1], -1)
    torch.testing.assert_close(V.T @ V, torch.eye(30, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(V.T @ K @ V, T, rtol=0, atol=1e-9)


def test_stops_at_an_invariant_subspace() -> None:
    alpha, _, V = tridiagonalise(torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0])), torch.tensor([1.0, 1.0, 0.0, 0.0]), 4)
    assert len(alpha) == V.shape[1] == 2


def exact_function(c: torch.Tensor) -> torch.Tensor:
    return Q @ ((N * LAMBDA) ** -0.5 * (Q.T @ c))


def test_a_function_of_a_matrix() -> None:
    c = torch.randn(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = apply_function(K, c, lambda values: values.clamp(min=1e-9) ** -0.5, max_steps=N, tolerance=0.0)
    torch.testing.assert_close(found, exact_function(c), rtol=1e-8, atol=1e-10)
    assert torch.equal(apply_function(K, 0 * c, lambda values: values, max_steps=5, tolerance=0.0), 0 * c)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3])
def test_a_function_stops_once_it_has_settled(tolerance: float) -> None:
    products = 0

    def matmul(V: torch.Tensor) -> torch.Tensor:
        nonlocal products
        products += 1
        return K @ V

    c = torch.ones(N, dtype=torch.float64)
    f = apply_function(Operator(matmul, N), c, lambda values: values**-0.5, max_steps=N, tolerance=tolerance)
    assert 4 < products < N and products % 4 == 0
    assert float((f - exact_function(c)).norm() / exact_function(c).norm()) < 5 * tolerance


def test_a_function_of_a_matrix_that_is_not_finite_is_refused() -> None:
    with pytest.raises(torch.linalg.LinAlgError):
        apply_function(K * float("nan"), torch.ones(N, dtype=K.dtype), torch.sqrt, max_steps=9, tolerance=0.0)


@pytest.mark.parametrize("method", ["block", "lanczos"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_operator_gives_the_spectrum_of_its_matrix(method: str, dtype: torch.dtype) -> None:
    matrix = K.to(dtype)
    products = 0

    def matmul(V: torch.Tensor) -> torch.Tensor:
        nonlocal products
        assert V.dtype == dtype
        products += V.shape[1]
        return matrix @ V

    s = Spectrum.from_operator(Operator(matmul, N, dtype), 10, method=method)  # type: ignore[arg-type]
    torch.testing.assert_close(s.eigenvalues, LAMBDA[:10], rtol=1e-5, atol=0)
    true_residuals = (K @ s.eigenvectors / N - s.eigenvectors * s.eigenvalues).norm(dim=0)
    torch.testing.assert_close(s.residual_norms, true_residuals, rtol=0.1, atol=1e-6)
    assert math.isnan(s.trace)
    assert s.resolved == 10
    assert products < 10 * 10 * (10 + 8)


def test_a_networks_kernel_as_an_operator() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 30), torch.nn.Tanh(), torch.nn.Linear(30, 2)).double()
    x = torch.randn(40, 2, dtype=torch.float64)
    s = Spectrum.from_operator(NTKOperator(net, x), 5)
    dense = Spectrum.from_kernel(empirical_ntk(net, x).detach(), 5)
    torch.testing.assert_close(s.eigenvalues, dense.eigenvalues, rtol=1e-6, atol=0)
    assert s.trace == pytest.approx(dense.trace)


def test_lanczos_needs_at_least_as_many_steps_as_modes() -> None:
    with pytest.raises(InputError, match="steps"):
        lanczos_top_k(K, 10, steps=5)


@pytest.mark.parametrize(
    ("A", "rank", "method", "said"),
    [
        (K, 0, "block", "rank"),
        (K, N + 1, "block", "rank"),
        (K, 3, "qr", "method"),
        (K * math.nan, 3, "block", "finite"),
    ],
)
def test_bad_operators_are_refused(A: torch.Tensor, rank: int, method: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Spectrum.from_operator(A, rank, method=method)  # type: ignore[arg-type]


def test_density_integrates_to_one_and_gives_traces() -> None:
    density = spectral_density(K, probes=20)
    step = float(density.points[1] - density.points[0])
    assert float(density.density.sum() * step) == pytest.approx(1, abs=0.01)
    assert float(density.weights.sum()) == pytest.approx(1)
    assert density.mean(lambda x: x) == pytest.approx(float(LAMBDA.mean()), rel=0.1)
    assert density.mean(lambda x: (x > 0.0095).double()) == pytest.approx(105 / N, abs=0.06)
    assert (density.density >= 0).all()
