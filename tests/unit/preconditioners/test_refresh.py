"""When a refresh comes into question, and how far the kernel has moved."""

import copy
import io
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from spectrain import ParameterPreconditioner, SamplePreconditioner, Spectrum, empirical_ntk
from spectrain.models import mlp
from spectrain.preconditioners import Preconditioner
from spectrain.preconditioners.refresh import kernel_change, last_due
from spectrain.spectral_maps import power


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


@pytest.mark.parametrize("side", ["trace", "each", "full", "parameter"])
def test_a_plain_loop_resumes_bit_for_bit(side: str) -> None:
    """300 landmarks: the eigensolver is warm, so what the last refresh found is part of the state."""
    x, y = torch.rand(300, 2), torch.rand(300, 2)

    def start() -> tuple[torch.nn.Module, Any, Preconditioner]:
        torch.manual_seed(0)
        network = mlp(2, 2, width=16, depth=1)
        S: Preconditioner = (
            ParameterPreconditioner(power(0.5)) if side == "parameter" else SamplePreconditioner(power(0.5), side)
        )
        return network, S.wrap(torch.optim.SGD(network.parameters(), lr=0.1)), S

    def go_on(parts: Any, steps: range) -> list[torch.Tensor]:
        network, optimizer, S = parts
        for step in steps:
            if step % 2 == 0:
                S.refresh(network, x, rank=4)
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(S.run(network, x), y).backward()
            optimizer.step()
        return list(network.parameters())

    whole, part, rest = start(), start(), start()
    expected = go_on(whole, range(5))
    go_on(part, range(3))
    with io.BytesIO() as file:
        torch.save([thing.state_dict() for thing in part], file)
        file.seek(0)
        for thing, state in zip(rest, torch.load(file, weights_only=True), strict=True):
            thing.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(expected, go_on(rest, range(3, 5)), strict=True))
