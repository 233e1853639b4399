"""lambda_max of the preconditioned kernel against dense matrices, EigenPro 2's rule, and rates that hold."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import spectrain
from spectrain import InputError, ParameterPreconditioner, SamplePreconditioner, Spectrum
from spectrain.models import mlp
from spectrain.preconditioners import automatic_rate, eigenpro_step_size, largest_preconditioned_eigenvalue
from spectrain.preconditioners.step_size import largest_diagonal, power_iteration
from spectrain.spectral_maps import flatten, power


def problem(C: int = 1, n: int = 30) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(n, 2, dtype=torch.float64)
    return mlp(2, C, width=24, depth=2).double(), x, torch.randn(n, C, dtype=torch.float64)


@pytest.mark.parametrize("side", [None, SamplePreconditioner, ParameterPreconditioner])
def test_the_largest_eigenvalue_is_that_of_the_dense_matrix(side: Any) -> None:
    model, x, _ = problem()
    K = spectrain.empirical_ntk(model, x) / len(x)
    spectrum = Spectrum.from_kernel(K * len(x))
    preconditioner, expected = None, float(spectrum.eigenvalues[0])
    if side is not None:
        preconditioner = side(power(0.5))
        preconditioner.refresh(model, x, rank=8)
        few = Spectrum.from_kernel(K * len(x), rank=8)
        expected = float((few.eigenvalues * few.ratio(power(0.5))).max())
    many = largest_preconditioned_eigenvalue(model, x, preconditioner, iterations=200)
    assert many == pytest.approx(expected, rel=1e-6)
    few_iterations = largest_preconditioned_eigenvalue(model, x, preconditioner)
    assert 0.9 * expected < few_iterations < 1.001 * expected
    assert all(p.grad is None for p in model.parameters())


def test_landmarks_that_are_a_subset_underestimate_it_and_the_measurement_does_not() -> None:
    """Against P^(1/2) J^T J P^(1/2) with a dense P."""
    model, x, _ = problem(n=40)
    P = ParameterPreconditioner(flatten())
    spectrum = P.refresh(model, x, rank=8, subset_size=12)
    parameters = list(model.parameters())
    rows = []  # of J P^(1/2)
    for f in model(x).squeeze(1):
        row = list(torch.autograd.grad(f, parameters, retain_graph=True))
        P.apply_(parameters, row, root=True)
        rows.append(torch.cat([part.flatten() for part in row]))
    expected = float(torch.linalg.matrix_norm(torch.stack(rows), 2)) ** 2 / 40
    measured = largest_preconditioned_eigenvalue(model, x, P, iterations=300)
    assert measured == pytest.approx(expected, rel=1e-5)
    assert measured > 1.2 * float(spectrum.eigenvalues[-1])


def test_with_a_loss_it_is_the_gauss_newton_matrix() -> None:
    model, x, y = problem(C=3)
    kernel = largest_preconditioned_eigenvalue(model, x, iterations=100)
    loss = partial(functional.mse_loss, target=y)  # mean over n C entries: H = 2 / (n C)
    assert largest_preconditioned_eigenvalue(model, x, loss=loss, iterations=100) == pytest.approx(2 * kernel / 3)
    with pytest.raises(InputError, match="linear"):
        largest_preconditioned_eigenvalue(model, x, loss=lambda f: f.sum())


def test_a_start_from_the_last_eigenvector_needs_few_iterations() -> None:
    model, x, _ = problem()
    exact, vector = power_iteration(model, x, iterations=100)
    assert power_iteration(model, x, iterations=1, start=vector)[0] == pytest.approx(exact, rel=1e-9)


def test_the_preconditioned_diagonal_is_that_of_the_dense_kernel() -> None:
    model, x, _ = problem()
    P = ParameterPreconditioner(flatten())
    spectrum = P.refresh(model, x, rank=8)
    V, lowered = spectrum.eigenvectors, spectrum.eigenvalues * (1 - spectrum.ratio(P.spectral_map))
    dense = spectrain.empirical_ntk(model, x) - 30 * V @ torch.diag(lowered) @ V.T
    assert largest_diagonal(model, x, P, spectrum=spectrum) == pytest.approx(float(dense.diagonal().max()), rel=1e-9)


def test_eigenpros_rule() -> None:
    assert eigenpro_step_size(top=0.1, beta=2.0, batch_size=1) == pytest.approx(1 / 2)
    assert eigenpro_step_size(top=0.1, beta=2.0, batch_size=20) == pytest.approx(20 / 2)
    assert eigenpro_step_size(top=0.1, beta=2.0, batch_size=22) == pytest.approx(0.99 * 44 / (2 + 21 * 0.1))
    assert eigenpro_step_size(top=0.1, beta=2.0, batch_size=10**9) == pytest.approx(0.99 * 2 / 0.1, rel=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("side", [None, SamplePreconditioner, ParameterPreconditioner])
def test_the_automatic_rate_descends_and_a_few_times_more_diverges(
    side: Any, batch_size: int | None, momentum: float
) -> None:
    """On the last layer alone, where the kernel does not move."""

    def final(factor: float) -> float:
        model, x, y = problem()
        for p in list(model.parameters())[:-2]:
            p.requires_grad_(False)
        preconditioner = None if side is None else side(flatten())
        if preconditioner is not None:
            preconditioner.refresh(model, x, rank=6)
        rate = automatic_rate(
            model, x, partial(functional.mse_loss, target=y), preconditioner, batch_size=batch_size, momentum=momentum
        )
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer: Any = torch.optim.SGD(trained, lr=factor * rate, momentum=momentum, nesterov=momentum > 0)
        optimizer = optimizer if preconditioner is None else preconditioner.wrap(optimizer)
        generator = torch.Generator().manual_seed(0)
        for _ in range(80):
            index = None if batch_size is None else torch.randperm(30, generator=generator)[:batch_size]
            rows = slice(None) if index is None else index
            output = model(x[rows]) if preconditioner is None else preconditioner.run(model, x[rows], index)
            optimizer.zero_grad()
            functional.mse_loss(output, y[rows]).backward()
            optimizer.step()
        return float(functional.mse_loss(model(x), y).detach() / functional.mse_loss(problem()[0](x), y).detach())

    assert final(1.0) < 0.95
    if batch_size is None:
        assert not final(2.2) < 10  # the limit is twice gradient descent's, less with Nesterov's momentum
