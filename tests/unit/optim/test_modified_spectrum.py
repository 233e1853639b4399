"""The wrapper as a torch.optim.Optimizer: closures, groups, schedulers, state, scalers, searches."""

import copy
import io
import warnings
from typing import Any

import pytest
import pytorch_optimizer
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from spectrain import (
    InputError,
    ModifiedSpectrumOptimizer,
    ParameterPreconditioner,
    SamplePreconditioner,
    SpectrainWarning,
    spectral_maps,
)
from spectrain.models import mlp
from spectrain.optim import MuonWithAdam, cosine
from spectrain.preconditioners import Landmarks

X = torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]
Y = (4 * X).sin()
MAP = spectral_maps.power(0.5)


def made(base: Any = torch.optim.SGD, **settings: Any) -> tuple[nn.Module, ModifiedSpectrumOptimizer]:
    torch.manual_seed(0)
    model = mlp(1, 1, width=8, depth=2, activation="tanh").double()
    optimizer = ModifiedSpectrumOptimizer(base(model.parameters(), **({"lr": 0.1} | settings)), MAP)
    optimizer.refresh(model, X, rank=6)
    return model, optimizer


def loss_of(model: nn.Module) -> Tensor:
    return (model(X) - Y).square().mean()


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def preconditioned(model: nn.Module, optimizer: ModifiedSpectrumOptimizer) -> list[Tensor]:
    parameters = list(model.parameters())
    gradients = list(torch.autograd.grad(loss_of(model), parameters))
    optimizer.preconditioner.apply_(parameters, gradients)
    return gradients


@pytest.mark.parametrize("with_closure", [True, False])
def test_a_step_is_the_base_on_the_preconditioned_gradient(with_closure: bool) -> None:
    model, optimizer = made()
    expected = [w - 0.1 * g for w, g in zip(weights(model), preconditioned(model, optimizer), strict=True)]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    if with_closure:
        with torch.no_grad():  # as Lightning calls it
            assert optimizer.step(closure).item() > 0
    else:
        closure()
        assert optimizer.step() is None
    assert same(weights(model), expected)


@pytest.mark.parametrize("kind", ["foreach", "fused"])
def test_a_base_in_one_kernel_steps_as_one_that_loops(kind: str) -> None:
    ends = []
    for settings in ({"foreach": False, "fused": False}, {kind: True}):
        model, optimizer = made(torch.optim.AdamW, **settings)
        for _ in range(5):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
        ends.append(weights(model))
    for one, other in zip(*ends, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


def test_without_a_refresh_it_is_the_base() -> None:
    model, _ = made()
    other = copy.deepcopy(model)
    for net, optimizer in (
        (model, torch.optim.Adam(model.parameters())),
        (other, ModifiedSpectrumOptimizer(torch.optim.Adam(other.parameters()), MAP)),
    ):
        loss_of(net).backward()
        optimizer.step()
    assert same(weights(model), weights(other))


def test_groups_and_state_are_the_bases_own_and_schedulers_reach_it() -> None:
    model, optimizer = made(torch.optim.Adam)
    assert optimizer.param_groups is optimizer.base.param_groups and optimizer.state is optimizer.base.state
    schedule = cosine(optimizer, max_steps=1)
    loss_of(model).backward()
    optimizer.step()
    schedule.step()
    before = weights(model)
    optimizer.step()
    assert same(weights(model), before)  # rate 0
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups is optimizer.base.param_groups and optimizer.state is optimizer.base.state


def test_a_group_added_later_is_trained_and_preconditioned_from_the_next_refresh_on() -> None:
    torch.manual_seed(0)
    model = mlp(1, 1, width=8, depth=1).double()
    *first, last = model.parameters()
    optimizer = ModifiedSpectrumOptimizer(torch.optim.SGD(first, lr=0.1), MAP)
    last.requires_grad_(False)
    optimizer.refresh(model, X, rank=4)
    last.requires_grad_(True)
    optimizer.add_param_group({"params": [last], "lr": 0.05})
    assert [group["lr"] for group in optimizer.base.param_groups] == [0.1, 0.05]
    loss_of(model).backward()
    expected, plain = last.detach() - 0.05 * last.grad, last.grad.clone()
    optimizer.step()
    assert torch.equal(last, expected)
    optimizer.refresh(model, X, rank=4)
    optimizer.zero_grad()
    loss_of(model).backward()
    plain = last.grad.clone()
    optimizer.step()
    assert not torch.equal(last.grad, plain)


def test_state_loads_without_code_and_of_the_bare_base_too() -> None:
    model, optimizer = made(torch.optim.Adam)
    loss_of(model).backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other = ModifiedSpectrumOptimizer(torch.optim.Adam(model.parameters()), MAP)
    other.load_state_dict({name: state[name] for name in ("state", "param_groups")})
    assert not other.preconditioner.ready
    other.load_state_dict(state)
    assert other.preconditioner.ready
    assert all(map(torch.equal, preconditioned(model, optimizer), preconditioned(model, other)))


def test_a_gradient_scaler_unscales_first() -> None:
    model, optimizer = made()
    expected = [w - 0.1 * g for w, g in zip(weights(model), preconditioned(model, optimizer), strict=True)]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(loss_of(model)).backward()
    scaler.step(optimizer)
    scaler.update()
    for found, value in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(found.detach(), value, rtol=1e-12, atol=1e-12)
    before = weights(model)
    for p in model.parameters():
        p.grad = torch.full_like(p, torch.inf)
    scaler.scale(torch.zeros(()))
    scaler.step(optimizer)
    assert same(weights(model), before)  # an overflow skips the step


def test_clipping_comes_before() -> None:
    model, optimizer = made()
    gradients = torch.autograd.grad(loss_of(model), list(model.parameters()))
    norm = float(torch.cat([g.flatten() for g in gradients]).norm())
    expected = [
        w - 0.1 * g * 0.01 / norm for w, g in zip(weights(model), preconditioned(model, optimizer), strict=True)
    ]
    loss_of(model).backward()
    clip_grad_norm_(model.parameters(), 0.01)
    optimizer.step()
    for found, value in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(found.detach(), value, rtol=1e-4, atol=1e-8)


def test_a_compiled_network() -> None:
    model, optimizer = made()
    other = copy.deepcopy(model)
    compiled = torch.compile(other, backend="eager")
    second = ModifiedSpectrumOptimizer(torch.optim.SGD(compiled.parameters(), lr=0.1), MAP)
    second.refresh(compiled, X, rank=6)
    for net, one in ((model, optimizer), (compiled, second)):
        loss_of(net).backward()
        one.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_works_in_scaled_variables(search: str | None) -> None:
    """Against L-BFGS on z itself, w = w_0 + P^(1/2) z with a dense P, over several steps."""
    torch.manual_seed(0)
    model, x = nn.Linear(6, 1).double(), torch.randn(30, 6, dtype=torch.float64) * torch.tensor([9, 5, 3, 2, 1, 0.5])
    y = torch.randn(30, 1, dtype=torch.float64)
    settings: dict[str, Any] = {"lr": 0.5, "max_iter": 3, "line_search_fn": search}
    optimizer = ModifiedSpectrumOptimizer(torch.optim.LBFGS(model.parameters(), **settings), spectral_maps.flatten())
    optimizer.refresh(model, x, rank=5)
    parameters = list(model.parameters())
    root = torch.eye(7, dtype=torch.float64)
    for column in root:  # symmetric
        optimizer.preconditioner.apply_(parameters, [column[:6].view(1, 6), column[6:]], root=True)
    start = torch.cat([p.detach().flatten() for p in parameters])
    z = nn.Parameter(torch.zeros(7, dtype=torch.float64))
    oracle = torch.optim.LBFGS([z], **settings)

    def closure_of_z() -> Tensor:
        oracle.zero_grad()
        w = start + root @ z
        loss = (x @ w[:6, None] + w[6] - y).square().mean()
        loss.backward()
        return loss

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        assert optimizer.step(closure).item() == pytest.approx(oracle.step(closure_of_z).item(), rel=1e-9)
    found = torch.cat([p.detach().flatten() for p in parameters])
    torch.testing.assert_close(found, (start + root @ z).detach(), rtol=1e-8, atol=1e-10)
    optimizer.refresh(model, x, rank=3)
    optimizer.step(closure)
    assert optimizer.state[parameters[0]]["n_iter"] <= 3  # the pairs of the old metric are forgotten


def test_schedule_free_weights_are_switched_through_the_wrapper() -> None:
    model, optimizer = made(pytorch_optimizer.ScheduleFreeAdamW)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    training = weights(model)
    optimizer.eval()
    assert not same(weights(model), training)
    optimizer.train()
    for a, b in zip(model.parameters(), training, strict=True):
        torch.testing.assert_close(a.detach(), b, rtol=1e-9, atol=1e-9)


def test_refusals() -> None:
    model, optimizer = made()
    with pytest.raises(InputError, match="already"):
        ParameterPreconditioner(MAP).wrap(optimizer)
    with pytest.raises(InputError, match=r"needs step\(closure\)"):
        made(torch.optim.LBFGS)[1].step()
    stranger = copy.deepcopy(model)
    optimizer.refresh(stranger, X, rank=4)
    loss_of(model).backward()
    with pytest.raises(InputError, match="none of the parameters"):
        optimizer.step()
    with pytest.raises(InputError, match="when it is made"):
        MuonWithAdam(model.parameters()).add_param_group({"params": [nn.Parameter(torch.zeros(2, 2))]})


def test_sparse_gradients_are_refused() -> None:
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Flatten(), nn.Linear(6, 1))
    optimizer = ModifiedSpectrumOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), MAP)
    x = torch.randint(0, 5, (8, 2))
    dense = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), model[2])
    dense[0].weight = model[0].weight
    landmarks = Landmarks(x, "exact")
    optimizer.preconditioner.take(landmarks.spectrum(dense, 4), landmarks, dense, x)
    model(x).sum().backward()
    with pytest.raises(InputError, match="sparse"):
        optimizer.step()


def test_two_preconditioners_at_once_are_noticed() -> None:
    torch.manual_seed(0)
    model, x = mlp(2, 1, width=8, depth=1), torch.rand(20, 2)
    S = SamplePreconditioner(spectral_maps.flatten())
    S.refresh(model, x, rank=4)
    optimizer = ModifiedSpectrumOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), spectral_maps.flatten())
    optimizer.refresh(model, x, rank=4)

    def step(f: Tensor) -> None:
        optimizer.zero_grad()
        f.square().mean().backward()
        optimizer.step()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(model(x))
    with pytest.warns(SpectrainWarning, match="two at once"):
        step(S(model(x)))
    with warnings.catch_warnings():  # that step is over; and a switched-off P_u does not multiply
        warnings.simplefilter("error")
        step(model(x))
        optimizer.preconditioner.strength = 0.0
        step(S(model(x)))
