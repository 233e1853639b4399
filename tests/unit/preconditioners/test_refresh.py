"""When a refresh comes into question, and how far the kernel has moved."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from spectrain import Spectrum, empirical_ntk
from spectrain.models import mlp
from spectrain.preconditioners.refresh import kernel_change, last_due


@pytest.mark.parametrize(
    ("period", "times"),
    [
        (20, [0, 5, 10, 20, 40, 60]),
        (40, [0, 5, 10, 20, 40]),
        (30, [0, 5, 10, 20, 30, 60]),
        (3, [0, 3, 6]),
        (1, [0, 1, 2]),
    ],
)
def test_times_double_up_to_the_period_and_are_its_multiples_from_there(period: int, times: list[int]) -> None:
    last = times[-1]
    assert [step for step in range(last + 1) if last_due(step, period) == step] == times
    assert last_due(last + period - 1, period) == last


@pytest.fixture(scope="module")
def kernel() -> tuple[torch.nn.Module, torch.Tensor, Spectrum]:
    torch.manual_seed(0)
    network, x = mlp(2, 2, width=32, depth=2).double(), torch.rand(40, 2, dtype=torch.float64)
    return network, x, Spectrum.from_kernel(empirical_ntk(network, x), rank=12)


def test_nothing_has_moved_at_the_same_weights(kernel: tuple[torch.nn.Module, torch.Tensor, Spectrum]) -> None:
    network, x, spectrum = kernel
    assert kernel_change(network, x, spectrum) < 1e-6


def test_a_spectrum_without_resolved_modes_says_nothing(
    kernel: tuple[torch.nn.Module, torch.Tensor, Spectrum],
) -> None:
    network, x, spectrum = kernel
    assert kernel_change(network, x, replace(spectrum, noise_floor=math.inf)) == math.inf


def test_growth_of_the_kernel_as_a_whole_is_no_change(kernel: tuple[torch.nn.Module, torch.Tensor, Spectrum]) -> None:
    network, x, spectrum = kernel
    grown = Spectrum(3 * spectrum.eigenvalues, spectrum.eigenvectors, spectrum.residual_norms, spectrum.noise_floor)
    assert kernel_change(network, x, grown) < 1e-6


def test_change_is_the_formula_with_the_dense_kernel(kernel: tuple[torch.nn.Module, torch.Tensor, Spectrum]) -> None:
    network, x, spectrum = kernel
    moved = copy.deepcopy(network)
    with torch.no_grad():
        for p in moved.parameters():
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype)
    V, values = spectrum.eigenvectors, spectrum.eigenvalues
    P = V @ V.T
    M = V @ torch.diag(values) @ V.T + values[-1] * (torch.eye(40, dtype=P.dtype) - P)
    w, Q = torch.linalg.eigh(M)
    root = Q @ torch.diag(w**-0.5) @ Q.T
    z = torch.randint(0, 2, (12,), generator=torch.Generator().manual_seed(5)).double() * 2 - 1
    after = root @ (empirical_ntk(moved, x) / 40) @ V @ (z / values.sqrt())
    a = float((V @ z) @ after) / 12
    expected = float((after - a * (V @ z)).norm()) / (a * math.sqrt(12))
    assert kernel_change(moved, x, spectrum, seed=5) == pytest.approx(expected, rel=1e-6)
    assert expected > 0.1
    assert kernel_change(moved, x, spectrum, seed=5) == kernel_change(moved, x, spectrum, seed=5)
