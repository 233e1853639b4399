"""Pilots on a linear network, whose kernel never moves, and on narrow ones, whose kernel does."""

import copy

import pytest
import torch
from torch import nn

from spectrain.kernels import empirical_ntk
from spectrain.selection import Pilot, network_pilot
from spectrain.spectral_maps import SpectralMap, flatten, identity, power
from spectrain.spectrum import Spectrum

X = torch.randn(40, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.logspace(0, -2, 8)
Y = torch.stack([X.sum(1), torch.sin(40 * X[:, 7])], 1)


def relu_network(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2)).double()


@pytest.mark.parametrize("g", [identity(), power(0.5, 5), flatten(5)])
def test_a_linear_network_is_what_its_kernel_predicts(g: SpectralMap) -> None:
    torch.manual_seed(0)
    pilot = network_pilot(nn.Linear(8, 2).double(), X, Y, held=7)(g)
    assert pilot.growth == pytest.approx(1, rel=1e-5)
    assert pilot.pace == pytest.approx(1, rel=1e-5)
    assert pilot.stable


def test_the_growth_is_that_of_the_dense_matrices() -> None:
    network, g = relu_network(16), flatten(5)
    before = copy.deepcopy(network.state_dict())
    pilot = network_pilot(network, X, Y, held=4)(g)
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())

    s = Spectrum.from_kernel(empirical_ntk(network, X).detach())
    S = torch.eye(40).double() - (s.eigenvectors * (1 - s.ratio(g))) @ s.eigenvectors.T
    g_max = float((s.ratio(g) * s.eigenvalues).max())
    start = network(X).detach()
    optimizer = torch.optim.SGD(network.parameters(), lr=1 / g_max)
    for _ in range(4):
        optimizer.zero_grad()
        f = network(X)
        f.backward(S @ (f.detach() - start + Y.mean(0) - Y) / 40)
        optimizer.step()
    largest = torch.linalg.eigvals(empirical_ntk(network, X).detach() @ S / 40).real.max()
    assert pilot.growth == pytest.approx(float(largest) / g_max, rel=1e-5)


def test_the_growth_falls_with_the_width_and_a_narrow_network_diverges() -> None:
    g = flatten(8)
    narrowest, narrow, wide = (network_pilot(relu_network(width), X, Y)(g) for width in (16, 256, 4096))
    assert narrowest == Pilot(float("inf"), 0.0)  # its outputs overflow
    assert narrow.growth > 2
    assert not narrow.stable
    assert wide.growth < 1.1
    assert wide.stable
