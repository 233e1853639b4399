"""A network, its training by S, and what is refused: the same in one process and on the ranks of test_fsdp.py."""

from typing import Any

import torch
from torch import nn

import spectrain
from spectrain.preconditioners.ranks import mean_over_ranks

STEPS, RATE, N = 12, 10.0, 41  # uneven shares


def problem() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 2)).double()
    x = torch.rand(N, 2, dtype=torch.float64)
    return network, x, torch.cat([torch.sin(6 * x.sum(1, keepdim=True)), x.prod(1, keepdim=True)], 1)


def message(call: Any) -> str:
    try:
        call()
    except spectrain.errors.InputError as error:
        return str(error)
    return "nothing was refused"


def train(
    network: nn.Module, x: torch.Tensor, y: torch.Tensor, whole: nn.Module, mine: slice, *, shared: bool
) -> list[float]:
    S = spectrain.SamplePreconditioner(spectrain.spectral_maps.flatten(rank=5))
    S.shared = shared
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9)
    index, losses = torch.arange(N), []
    for step in range(STEPS):
        if step % 4 == 0:
            with torch.no_grad():
                for copy, shard in zip(whole.parameters(), network.parameters(), strict=True):
                    copy.copy_(shard.full_tensor() if shared else shard)
            S.refresh(whole, x, rank=8)
        optimizer.zero_grad()
        loss = (S(network(x[mine]), index[mine]) - y[mine]).square().mean()
        if shared:
            loss = mean_over_ranks(loss, len(x[mine]))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
