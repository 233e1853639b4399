"""Muon with Adam as one optimizer, and the schedules."""

import copy
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from spectrain.models import mlp
from spectrain.optim import MuonWithAdam, apply_scales, constant, cosine, scaled_groups


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    x = torch.linspace(-1, 1, 32)[:, None]
    for _ in range(steps):
        optimizer.zero_grad()
        (network(x) - x.sin()).square().mean().backward()
        optimizer.step()


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))


def test_matrices_take_muon_and_the_rest_adam() -> None:
    network, oracle = small(), small()
    mine = MuonWithAdam(network.parameters(), lr=0.02)
    matrices = [p for p in oracle.parameters() if p.ndim == 2]
    rest = [p for p in oracle.parameters() if p.ndim != 2]
    muon = torch.optim.Muon(matrices, lr=0.02, momentum=0.95, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.Adam(rest, lr=0.02)
    x = torch.linspace(-1, 1, 32)[:, None]
    for _ in range(5):
        for net, optimizers in ((network, [mine]), (oracle, [muon, adam])):
            net.zero_grad()
            (net(x) - x.sin()).square().mean().backward()
            for optimizer in optimizers:
                optimizer.step()
    for a, b in zip(network.parameters(), oracle.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_scheduler_reaches_both_parts() -> None:
    network = small()
    optimizer = MuonWithAdam(network.parameters(), lr=0.02)
    schedule = cosine(optimizer, max_steps=1)
    optimizer.step()
    schedule.step()
    before = copy.deepcopy(network.state_dict())
    train(network, optimizer, 1)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())  # rate 0


def test_resumed_equals_uninterrupted_bit_for_bit() -> None:
    whole, part = small(), small()
    optimizer = MuonWithAdam(whole.parameters(), lr=0.02)
    train(whole, optimizer, 6)
    first = MuonWithAdam(part.parameters(), lr=0.02)
    train(part, first, 3)
    second = MuonWithAdam(part.parameters(), lr=0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(part, second, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), part.parameters(), strict=True))


@pytest.mark.parametrize("layer", [nn.Linear(3, 2, bias=False), nn.LayerNorm(3)])
def test_only_one_kind_of_parameter(layer: nn.Module) -> None:
    optimizer = MuonWithAdam(layer.parameters())
    loss = optimizer.step(lambda: layer(torch.eye(2, 3)).square().sum())
    assert float(loss.detach()) > 0


def test_cosine_and_warm_up() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = cosine(optimizer, max_steps=10, warmup_steps=4)
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert rates[7] == pytest.approx(1 + math.cos(math.pi / 2))
    assert rates[10] == pytest.approx(0)


def test_a_cosine_that_begins_late() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = cosine(optimizer, max_steps=16, hold=0.75)
    rates = []
    for _ in range(17):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:13] == [2.0] * 13
    assert rates[13:] == pytest.approx([1 + math.cos(math.pi * part / 4) for part in (1, 2, 3, 4)])


def test_constant_after_warm_up() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = constant(optimizer, max_steps=10, warmup_steps=1)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 2.0


@pytest.mark.parametrize(
    ("make", "tolerance"),
    # What is left of the gradient's scale: Adam's epsilon, and the bfloat16 of Muon's orthogonalisation.
    [(partial(torch.optim.Adam, eps=1e-14), 1e-7), (MuonWithAdam, 2e-3)],
)
def test_one_rate_means_the_same_in_both_parameterisations(make: Any, tolerance: float) -> None:
    """The same function in NTK and in standard parameterisation takes the same steps under a scale-free optimizer."""
    torch.manual_seed(0)
    ntk = mlp(2, 1, width=16, depth=2, activation="tanh").double()
    standard = mlp(2, 1, width=16, depth=2, activation="tanh", parameterization="standard").double()
    with torch.no_grad():
        for a, b in zip(ntk[::2], standard[::2], strict=True):
            b.weight.copy_(a.weight_scale * a.weight)
            b.bias.copy_(a.bias_scale * a.bias)
    x = torch.rand(20, 2, dtype=torch.float64)
    for network in (ntk, standard):
        optimizer = apply_scales(make(scaled_groups(network), lr=0.01))
        for _ in range(3):
            optimizer.zero_grad()
            (network(x) - x[:, :1]).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ntk(x), standard(x), rtol=0, atol=tolerance)


def test_groups_hold_every_trainable_parameter_once() -> None:
    network = mlp(2, 1, width=8, depth=2)
    network[0].bias.requires_grad_(False)
    groups = scaled_groups(nn.Sequential(network, network))  # shared layers count once
    found = [p for group in groups for p in group["params"]]
    assert len(found) == len(set(found)) == 5
    assert {round(group["lr_scale"], 6) for group in groups} == {1.0, round(1 / 0.3, 6), round(8**0.5, 6), 2.0}
