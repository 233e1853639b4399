"""Gauss-Newton on data: the factored Jacobian against an explicit one, and what a fit reaches."""

import pytest
import torch
from torch import Tensor, nn

from spectrain import InputError, empirical_ntk
from spectrain.models import fourier
from spectrain.optim import GaussNewton, LeastSquares, linearize


class Odd(nn.Module):
    """A layer that no rule knows, one that is used twice, and a parameter that has no part in the output."""

    def __init__(self) -> None:
        super().__init__()
        self.bilinear, self.twice, self.unused = nn.Bilinear(2, 2, 4), nn.Linear(4, 4), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.bilinear(x, x))
        return self.twice(torch.sin(self.twice(h)))[:, :2]


def mlp() -> nn.Module:
    net = nn.Sequential(nn.Linear(2, 7), nn.ReLU(), nn.Linear(7, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3))
    net[2].bias.requires_grad_(False)  # type: ignore[union-attr]
    return net


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(24, 2))


def transformer() -> nn.Module:
    block = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    return nn.Sequential(block, nn.Flatten(), nn.Linear(12, 1))


NETWORKS = {"mlp": (mlp, (2,)), "conv": (convolution, (1, 8)), "transformer": (transformer, (3, 4)), "odd": (Odd, (2,))}


@pytest.mark.parametrize("name", NETWORKS)
def test_residuals_and_jacobian_are_exact(name: str) -> None:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    net = make().double()
    x = torch.randn(9, *shape, dtype=torch.float64)
    y = torch.randn_like(net(x))
    residuals = LeastSquares(net).residuals(x, y)
    oracle = linearize(residuals(), [p for p in net.parameters() if p.requires_grad])
    J, lin = oracle.jacobian(), residuals.linearize()
    n, P = J.shape
    assert torch.allclose(lin.r, (net(x) - y).T.flatten(), rtol=0, atol=1e-14) and lin.parameters == P
    v, d, some = torch.randn(n).double(), torch.randn(P).double(), torch.tensor([0, 3, n - 1])
    for ours, exact in (
        (lin.jacobian(), J),
        (lin.gram(), J @ J.T),
        (lin.columns(some), J @ J[some].T),
        (lin.normal(), J.T @ J),
        (lin.diagonal(), J.square().sum(1)),
        (lin.push(d), J @ d),
        (lin.pull(v), J.T @ v),
    ):
        assert torch.allclose(ours, exact, rtol=0, atol=1e-12 * float(exact.abs().max()))


def test_its_kernel_is_the_full_ntk() -> None:
    torch.manual_seed(0)
    net, x = mlp().double(), torch.randn(6, 2, dtype=torch.float64)
    K = LeastSquares(net).residuals(x, torch.zeros(6, 3).double()).linearize().gram()
    full = empirical_ntk(net, x, outputs="full")  # [n, n, C, C]
    assert torch.allclose(K, full.permute(2, 0, 3, 1).reshape(18, 18), atol=1e-12)


def test_a_signal_is_fitted_to_rounding() -> None:
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 64, dtype=torch.float64)[:, None]
    y = torch.cat([torch.sin(9 * x), torch.sign(x)], 1)
    net = fourier(1, 2, width=64, depth=2).double()
    optimizer, fit = GaussNewton(net.parameters()), LeastSquares(net)
    losses = [float(optimizer.step(fit.residuals(x, y))) for _ in range(8)]
    assert losses[-1] < 1e-20 * losses[0]
    assert optimizer.state["fallbacks"] == 0


def test_training_leaves_no_trace_of_the_kernel() -> None:
    """Gradients, flags and random numbers are as they were; only the weights have moved."""
    torch.manual_seed(0)
    net = mlp()
    x, y = torch.randn(5, 2), torch.randn(5, 3)
    before, state = [p.clone() for p in net.parameters()], torch.get_rng_state()
    GaussNewton(net.parameters(), mu=1e-4).step(LeastSquares(net).residuals(x, y))
    assert all(p.grad is None for p in net.parameters()) and torch.equal(torch.get_rng_state(), state)
    moved = [not torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True)]
    assert moved == [p.requires_grad for p in net.parameters()]


@pytest.mark.parametrize("shape", [(5, 2), (4, 3), (5,)])
def test_targets_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    residuals = LeastSquares(mlp()).residuals(torch.randn(5, 2), torch.zeros(shape))
    with pytest.raises(InputError, match=r"\[5, 3\].*one shape"):
        residuals.linearize()
    with pytest.raises(InputError, match="one shape"):
        residuals()


def test_an_optimizer_of_other_parameters_is_refused() -> None:
    net = mlp()
    optimizer = GaussNewton(net[0].parameters())  # type: ignore[index]
    with pytest.raises(InputError, match=r"21 parameters.*84"):
        optimizer.step(LeastSquares(net).residuals(torch.randn(5, 2), torch.zeros(5, 3)))
