"""Two ranks under DistributedDataParallel (gloo): gradients are the mean of what each rank has by itself."""

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = """
import pickle, sys
import torch
import torch.distributed as dist
from spectrain import BatchPreconditioner, spectral_maps
from spectrain.models import mlp
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()


class Step(torch.nn.Module):  # Lightning's wrapper stands around the training step
    def __init__(self, S, network):
        super().__init__()
        self.S, self.network = [S], network

    def forward(self, x):
        return self.S[0].run(self.network, x)


def gradients(layers, way):
    torch.manual_seed(0)
    network, data = mlp(2, 1, width=8, depth=2).double(), torch.randn(2, 12, 2, dtype=torch.float64)
    S = BatchPreconditioner(spectral_maps.power(0.5), layers=layers)
    if way == "alone":
        for x in data:
            (S.run(network, x).square().sum() / 2).backward()
    else:
        wrap = torch.nn.parallel.DistributedDataParallel
        step = Step(S, wrap(network)) if way == "network" else wrap(Step(S, network))
        step(data[rank]).square().sum().backward()
    assert S.skipped_steps == 0
    return [p.grad for p in network.parameters()]


results = {(layers, way): gradients(layers, way) for layers in (None, 2) for way in ("alone", "network", "step")}
with open(f"{sys.argv[1]}/{rank}", "wb") as file:
    pickle.dump(results, file)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_gradients_are_averaged_over_ranks(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    processes = [subprocess.Popen(command, env={**common, "RANK": str(rank)}) for rank in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for rank in range(2):
        results = pickle.loads((tmp_path / str(rank)).read_bytes())
        for (layers, _), found in results.items():
            for one, two in zip(found, results[layers, "alone"], strict=True):
                torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)
