"""S with a tail beyond the landmarks' modes, against the matrix formed in float64."""

import math

import pytest
import torch
from torch import Tensor

from spectrain import InputError, Spectrum, spectral_maps
from spectrain.preconditioners import GridPreconditioner
from spectrain.preconditioners.grid_tail import dct_matrix, full_grid

ROWS, COLUMNS, K = 6, 8, 5
N = ROWS * COLUMNS


def spectrum() -> Spectrum:
    Q, _ = torch.linalg.qr(torch.randn(N, K, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    return Spectrum(torch.logspace(0, -2, K, dtype=torch.float64), Q, torch.zeros(K, dtype=torch.float64), 0.0)


def prepared(exponent: float) -> GridPreconditioner:
    S = GridPreconditioner(spectral_maps.power(0.7), (ROWS, COLUMNS), exponent=exponent)
    S.update(spectrum(), dtype=torch.float64)
    return S


def applied(S: GridPreconditioner, c: Tensor, index: Tensor | None = None) -> Tensor:
    output = torch.zeros_like(c, requires_grad=True)
    S(output, index).backward(c)
    assert output.grad is not None
    return output.grad


def explicit(exponent: float) -> Tensor:
    V, ratio = spectrum().eigenvectors, spectrum().ratio(spectral_maps.power(0.7))
    F = torch.kron(dct_matrix(ROWS), dct_matrix(COLUMNS))
    w = torch.cartesian_prod(torch.arange(ROWS), torch.arange(COLUMNS)).double()
    h = (math.pi * w.square().sum(1) / 4 / K).clamp(min=1) ** exponent
    P = torch.eye(N, dtype=torch.float64) - V @ V.T
    return (V @ torch.diag(ratio) @ V.T + P @ F.T @ torch.diag(h) @ F @ P) / h.max()


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("outputs", [1, 3])
def test_it_is_the_matrix_of_the_docstring(exponent: float, outputs: int) -> None:
    c = torch.randn(N, outputs, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(applied(prepared(exponent), c), explicit(exponent) @ c)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(applied(prepared(exponent), c[order], order), (explicit(exponent) @ c)[order])


def test_it_is_positive_definite_with_a_largest_factor_of_one() -> None:
    values = torch.linalg.eigvalsh(explicit(1.0))
    assert 0 < values[0] < values[-1] <= 1 + 1e-12


def test_without_a_tail_it_is_the_parent_and_without_strength_the_identity() -> None:
    c = torch.randn(N, 1, dtype=torch.float64)
    V, ratio = spectrum().eigenvectors, spectrum().ratio(spectral_maps.power(0.7))
    torch.testing.assert_close(applied(prepared(0.0), c), c - V @ ((1 - ratio)[:, None] * (V.T @ c)))
    weak = prepared(1.0)
    weak.strength = 0.0
    torch.testing.assert_close(applied(weak, c), c)


def test_cosines_are_orthonormal() -> None:
    for size in (1, 2, 7):
        torch.testing.assert_close(dct_matrix(size) @ dct_matrix(size).T, torch.eye(size, dtype=torch.float64))


def test_the_grid_is_found_in_the_points() -> None:
    x = torch.cartesian_prod(torch.linspace(-1, 1, ROWS), torch.linspace(-1, 1, COLUMNS))
    assert full_grid(x) == (ROWS, COLUMNS)
    for other in (x[1:], x.flip(0), torch.rand(9, 3), {"x": x}):
        with pytest.raises(InputError, match="fill a two-dimensional grid"):
            full_grid(other)


def test_half_a_strength_is_half_way_to_the_matrix() -> None:
    c = torch.randn(N, 2, dtype=torch.float64)
    half = prepared(0.5)
    half.strength = 0.5
    torch.testing.assert_close(applied(half, c), (c + explicit(0.5) @ c) / 2)


def test_a_restored_one_goes_on_alike() -> None:
    c = torch.randn(N, 1, dtype=torch.float64)
    S = prepared(0.5)
    restored = GridPreconditioner(spectral_maps.power(0.7)).load_state_dict(S.state_dict())
    assert torch.equal(applied(restored, c), applied(S, c))


def test_refusals() -> None:
    with pytest.raises(InputError, match="exponent"):
        GridPreconditioner(spectral_maps.power(), (2, 2), exponent=-1.0)
    with pytest.raises(InputError, match="whole grid"):
        applied(prepared(0.5), torch.ones(4, 1, dtype=torch.float64), torch.arange(4))
