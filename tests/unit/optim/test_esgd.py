"""Equilibrated gradient descent against the exact Hessian, in float64."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.models import mlp, siren
from spectrain.optim import ESGD

X = torch.linspace(-1, 1, 16, dtype=torch.float64)[:, None]


def network() -> nn.Module:
    torch.manual_seed(0)
    return mlp(1, 1, width=6, depth=2, activation="tanh").double()


def loss(model: nn.Module) -> Tensor:
    return (model(X) - (3 * X).sin()).square().mean()


def closure(model: nn.Module) -> Any:
    def evaluate() -> Tensor:
        model.zero_grad()
        value = loss(model)
        value.backward()
        return value

    return evaluate


def drawn(model: nn.Module, number: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(number)
    return [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in model.parameters()]


def hessian_times(model: nn.Module, v: list[Tensor]) -> list[Tensor]:
    """By two passes through the graph."""
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(loss(model), parameters, create_graph=True)
    along = sum((g * part).sum() for g, part in zip(gradient, v, strict=True))
    products = torch.autograd.grad(along, parameters, allow_unused=True)
    return [torch.zeros_like(p) if hv is None else hv for p, hv in zip(parameters, products, strict=True)]


def test_steps_are_those_of_the_exact_hessian() -> None:
    """Five steps by the formula: draws at the first two and every second one; Nesterov's momentum; the mean forgets."""
    lr, momentum, decay, eps, every = 0.003, 0.8, 0.9, 1e-3, 2
    mine, exact = network(), network()
    optimizer = ESGD(mine.parameters(), lr=lr, momentum=momentum, decay=decay, eps=eps, every_n_steps=every)
    velocity = [torch.zeros_like(p) for p in exact.parameters()]
    square, draws = [torch.zeros_like(p) for p in exact.parameters()], 0
    for step in range(5):
        optimizer.step(closure(mine))
        if step in (0, 1, 2, 4):
            products = hessian_times(exact, drawn(exact, step))
            square = [decay * s + (1 - decay) * hv**2 for s, hv in zip(square, products, strict=True)]
            draws += 1
        closure(exact)()
        with torch.no_grad():
            for i, p in enumerate(exact.parameters()):
                assert p.grad is not None
                d = p.grad / ((square[i] / (1 - decay**draws)).sqrt() + eps)
                velocity[i] = momentum * velocity[i] + d
                p -= lr * (d + momentum * velocity[i])
    for a, b in zip(mine.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    moved = sum((a - b).abs().max() for a, b in zip(mine.parameters(), network().parameters(), strict=True))
    assert moved > 1e-2


@pytest.mark.parametrize("make", [siren, partial(mlp, activation="tanh")])
def test_differences_in_single_precision_are_the_hessian(make: Any) -> None:
    """One draw against two passes in double precision; a ReLU network's kinks only the difference sees."""
    torch.manual_seed(0)
    model = make(1, 1, width=64, depth=2)
    x, y = X.float(), (3 * X).sin().float()
    optimizer = ESGD(model.parameters(), lr=0.0, decay=0.0, every_n_steps=1)

    def evaluate() -> Tensor:
        model.zero_grad()
        value: Tensor = (model(x) - y).square().mean()
        value.backward()
        return value

    optimizer.step(evaluate)
    v = [part.double() for part in drawn(model, 0)]
    exact = torch.cat([part.flatten() for part in hessian_times(model.double(), v)])
    found = torch.cat([optimizer.state[p]["square"].sqrt().flatten() for p in model.parameters()])
    assert (found - exact.abs()).norm() < 0.03 * exact.norm()


def test_D_is_the_length_of_the_hessians_rows() -> None:
    """Of w^T H w / 2, with a long memory: E[(H v)^2]_i = sum_j H_ij^2."""
    torch.manual_seed(1)
    H = torch.randn(5, 5, dtype=torch.float64)
    H = (H + H.T) * torch.tensor([0.1, 1.0, 10.0, 1.0, 0.3], dtype=torch.float64).outer(torch.ones(5)).sqrt()
    H = (H + H.T) / 2
    w = nn.Parameter(torch.ones(5, dtype=torch.float64))
    optimizer = ESGD([w], lr=0.0, decay=0.999, every_n_steps=600)

    def evaluate() -> Tensor:
        w.grad = H @ w.detach()
        return w.detach() @ w.grad / 2

    for _ in range(600):
        optimizer.step(evaluate)
    D = (optimizer.state[w]["square"] / (1 - 0.999**600)).sqrt()
    torch.testing.assert_close(D, H.norm(dim=1), rtol=0.15, atol=0)


def test_a_draw_leaves_weights_and_returns_the_loss_of_the_weights() -> None:
    model = network()
    before = loss(model).item()
    found = ESGD(model.parameters(), lr=0.0).step(closure(model))
    assert found.item() == before == loss(model).item()


def test_evaluations_are_two_in_a_step_with_a_draw() -> None:
    model = network()
    calls = 0

    def counted() -> Tensor:
        nonlocal calls
        calls += 1
        value: Tensor = closure(model)()
        return value

    optimizer = ESGD(model.parameters(), every_n_steps=4)
    counts = []
    for _ in range(9):
        optimizer.step(counted)
        counts.append(calls)
    assert counts == [2, 4, 6, 8, 10, 11, 12, 13, 15]


def test_weights_are_put_back_where_the_closure_fails() -> None:
    model = network()
    before = [p.detach().clone() for p in model.parameters()]

    def broken() -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ESGD(model.parameters()).step(broken)
    assert all(torch.equal(p, value) for p, value in zip(model.parameters(), before, strict=True))


def test_parameters_without_a_gradient_stay() -> None:
    model = network()
    idle = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = ESGD([{"params": model.parameters()}, {"params": [idle], "lr": 1.0}])
    optimizer.step(closure(model))
    assert torch.equal(idle, torch.ones(3, dtype=torch.float64)) and math.isfinite(loss(model).item())


def test_without_a_closure() -> None:
    with pytest.raises(InputError, match=r"give step\(closure\)"):
        ESGD(network().parameters()).step()
