"""Conjugate gradients with a Nystroem sketch against the dense solve."""

import pytest
import torch
from torch import nn

from spectrain.models import mlp
from spectrain.optim import DenseLinearization, GaussNewton
from spectrain.optim.gauss_newton import DampedSystem
from spectrain.optim.sketched import Sketch
from spectrain.pde import Problem
from spectrain.pde.equations import Kovasznay


def decaying(n: int, P: int) -> DenseLinearization:
    g = torch.Generator().manual_seed(0)
    J = torch.randn(n, P, generator=g, dtype=torch.float64) * torch.logspace(0, -5, P, dtype=torch.float64)
    return DenseLinearization(torch.randn(n, generator=g, dtype=torch.float64), J)


@pytest.mark.parametrize("landmarks", [10, 40, 150])
def test_it_is_the_dense_solve(landmarks: int) -> None:
    lin = decaying(150, 200)
    K = lin.gram()
    c = 1e-6 * float(K.trace())
    found = Sketch(lin, landmarks).solve(c, lin.r, tolerance=1e-12, iterations=1000)
    assert found is not None
    expected = torch.linalg.solve(K + c * torch.eye(150, dtype=torch.float64), lin.r)
    assert float((found - expected).norm() / expected.norm()) < 1e-6


def test_more_landmarks_take_fewer_iterations() -> None:
    """What the sketch is for: after ten iterations the residual falls with m."""
    lin = decaying(150, 200)
    K = lin.gram()
    c = 1e-6 * float(K.trace())
    left = []
    for m in (5, 40, 120):
        x = Sketch(lin, m).solve(c, lin.r, iterations=10)
        left.append(float("inf") if x is None else float((K @ x + c * x - lin.r).norm() / lin.r.norm()))
    assert left[2] < 1e-4 and 10 * left[2] < min(left[:2]), left


def test_columns_of_the_factored_kernel() -> None:
    torch.manual_seed(0)
    network = mlp(2, 3, width=8, depth=2, activation="tanh", parameterization="standard").double()
    problem = Problem(Kovasznay(), network, points=20, boundary_points=9)
    lin = problem.residuals(problem.draw(torch.Generator().manual_seed(0))).linearize()
    index = torch.tensor([0, 3, 19, 25, 60, len(lin.r) - 1])
    torch.testing.assert_close(lin.columns(index), lin.gram()[:, index], rtol=1e-12, atol=1e-14)


def test_a_large_kernel_is_never_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By size alone, the same step: the direction of the dense system, and a curve that is fitted."""
    lin = decaying(60, 90)
    dense = DampedSystem(lin).direction(1e-6)
    monkeypatch.setattr("spectrain.optim.gauss_newton.LARGEST_KERNEL", 8 * 20**2)
    monkeypatch.setattr("spectrain.optim.sketched.LANDMARKS", 30)
    monkeypatch.setattr(DenseLinearization, "gram", None)
    sketched = DampedSystem(lin).direction(1e-6)
    assert dense is not None and sketched is not None
    assert float((sketched - dense).norm() / dense.norm()) < 1e-4

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 1)).double()
    x = torch.linspace(-1, 1, 30, dtype=torch.float64)[:, None]
    optimizer = GaussNewton(net.parameters(), mu=1e-8)
    losses = [float(optimizer.step(lambda: (net(x) - torch.sin(3 * x))[:, 0] / 30**0.5)) for _ in range(15)]
    assert losses[-1] < 1e-6 * losses[0] and optimizer.state["fallbacks"] == 0


def test_a_solution_that_rounding_spoils_is_none() -> None:
    """As where the dense system's Cholesky fails: more damping is asked for."""
    J = decaying(150, 200).jacobian()
    assert Sketch(DenseLinearization(torch.ones(150), J.float()), 150).solve(1e-12, torch.ones(150)) is None
    nothing = DenseLinearization(torch.ones(150), torch.zeros(150, 200))
    assert Sketch(nothing, 20).solve(1e-6, nothing.r) is None
