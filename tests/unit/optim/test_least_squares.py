"""Gauss-Newton on data: the factored Jacobian against an explicit one, and what a fit reaches."""

import os
import subprocess
import sys
from functools import partial

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


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 4, 3, groups=2), nn.Tanh(), nn.Conv1d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(16, 2)
    )


class Words(nn.Module):
    """Indices in place of numbers; fewer parameters than residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(3, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.sin(self.table(x.abs().long() % 3)))


NETWORKS = {
    "grouped": (grouped, (2, 8)),
    "words": (Words, ()),
    "mlp": (mlp, (2,)),
    "conv": (convolution, (1, 8)),
    "transformer": (transformer, (3, 4)),
    "odd": (Odd, (2,)),
}


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


def test_the_kernel_does_not_depend_on_the_order_of_hashes() -> None:
    """A set of names has another order in every process, and sums in another order are other sums."""
    code = (
        "import torch, hashlib; from spectrain.models import mlp; from spectrain.optim import LeastSquares;"
        "torch.manual_seed(0); net = mlp(2, 1, width=32); x = torch.rand(50, 2);"
        "K = LeastSquares(net).residuals(x, torch.zeros(50, 1)).linearize().gram();"
        "print(hashlib.sha256(K.numpy().tobytes()).hexdigest())"
    )
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    run = partial(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len({run(env=env | {"PYTHONHASHSEED": str(seed)}).stdout for seed in (1, 2)}) == 1


def test_weights_are_put_back_where_a_trial_fails() -> None:
    net, calls = mlp(), []
    residuals = LeastSquares(net).residuals(torch.randn(5, 2), torch.zeros(5, 3))
    working = type(residuals).__call__

    class Failing(type(residuals)):  # type: ignore[misc]
        def __call__(self) -> Tensor:
            calls.append(1)
            raise KeyboardInterrupt

    failing = Failing(*vars(residuals).values())
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(KeyboardInterrupt):
        GaussNewton(net.parameters()).step(failing)
    assert calls and working is not Failing.__call__
    assert all(torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))


def test_layers_may_be_frozen_on_the_way() -> None:
    torch.manual_seed(0)
    net, x, y = Odd(), torch.randn(6, 2), torch.zeros(6, 2)
    fit, optimizer = LeastSquares(net), GaussNewton(net.parameters(), momentum=0.5)
    losses = [float(optimizer.step(fit.residuals(x, y)))]
    net.bilinear.weight.requires_grad_(False)
    losses += [float(optimizer.step(fit.residuals(x, y))) for _ in range(2)]
    assert losses[2] < losses[1] < losses[0]


def test_points_in_double_precision_are_taken() -> None:
    net = mlp()
    x, y = torch.randn(5, 2), torch.zeros(5, 3)
    one, other = (LeastSquares(net).residuals(points, y) for points in (x, x.double()))
    assert torch.equal(one(), other()) and torch.equal(one.linearize().gram(), other.linearize().gram())


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
    residuals = LeastSquares(net).residuals(torch.randn(5, 2), torch.zeros(5, 3))
    with pytest.raises(InputError, match=r"21 parameters in 2.*84 in 7"):
        optimizer.step(residuals)
    trained = [p for p in net.parameters() if p.requires_grad]
    with pytest.raises(InputError, match="in its order"):
        GaussNewton(trained[::-1]).step(residuals)
