"""The numbers of a CUDA device are those of the CPU: `make test-gpu` runs what is marked `gpu`."""

from pathlib import Path

import pytest
import torch
from program import train
from torch import Tensor, nn

import spectrain
from processes import run_ranks
from spectrain import BatchPreconditioner, ModifiedSpectrumOptimizer, SamplePreconditioner, Spectrum
from spectrain.models import mlp
from spectrain.spectral_maps import power

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

WORKER = """
import spectrain
from spectrain.models import mlp
device = "DEVICE"
if device == "cuda":
    torch.cuda.set_device(rank)
dist.init_process_group("nccl" if device == "cuda" else "gloo")
torch.manual_seed(0)
network, x = mlp(2, 1, width=16, depth=2, activation="tanh").double(), torch.rand(41, 2, dtype=torch.float64)
K = spectrain.empirical_ntk(network.to(device), x.to(device), process_group=dist.group.WORLD)
leave(K.cpu())
dist.destroy_process_group()
"""


def problem(device: str) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    network = mlp(2, 1, width=16, depth=2, activation="tanh").double()
    x = torch.rand(41, 2, dtype=torch.float64)
    return network.to(device), x.to(device), torch.sin(9 * x[:, :1]).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("budget", [None, "1MiB"])
def test_kernel_and_spectrum(device: str, budget: str | None) -> None:
    network, x, _ = problem("cpu")
    K = spectrain.empirical_ntk(network, x, method="jacobian")
    network, x, _ = problem(device)
    found = spectrain.empirical_ntk(network, x, memory_budget=budget)
    assert found.device.type == device
    torch.testing.assert_close(found.cpu(), K, rtol=1e-10, atol=1e-12)
    spectrum = Spectrum.from_kernel(found, rank=8)
    torch.testing.assert_close(
        spectrum.eigenvalues.cpu(), torch.linalg.eigvalsh(K / len(x)).flip(0)[:8], rtol=1e-8, atol=0
    )


def losses(side: str, device: str, *, compiled: str | None = None) -> list[float]:
    """Of six steps of gradient descent."""
    network, x, y = problem(device)
    forward = torch.compile(network, mode=compiled) if compiled else network
    optimizer: torch.optim.Optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    S = SamplePreconditioner(power(0.5)) if side == "sample" else BatchPreconditioner(power(0.5), layers=None)
    if side == "parameter":
        optimizer = ModifiedSpectrumOptimizer(optimizer, power(0.5))
        optimizer.refresh(network, x, rank=8)
    elif side == "sample":
        S.refresh(network, x, rank=8)
    ways = {"parameter": forward, "sample": lambda x: S(forward(x)), "batch": lambda x: S.run(network, x)}
    found = []
    for _ in range(6):
        loss = (ways[side](x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("side", ["sample", "parameter", "batch"])
def test_every_way_takes_the_same_steps(side: str, device: str) -> None:
    expected = losses(side, "cpu")
    assert expected[-1] < expected[0]
    assert losses(side, device) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), DEVICES[1]])
@pytest.mark.parametrize("side", ["sample", "parameter"])
def test_a_network_in_cuda_graphs(side: str, device: str) -> None:
    assert losses(side, device, compiled="reduce-overhead") == pytest.approx(losses(side, "cpu"), rel=1e-8)


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), DEVICES[1]])
def test_ranks_share_a_kernel(tmp_path: Path, device: str) -> None:
    """By NCCL, one rank for each device."""
    network, x, _ = problem("cpu")
    expected = spectrain.empirical_ntk(network, x)
    for found in run_ranks(WORKER.replace("DEVICE", device), max(1, torch.cuda.device_count()), tmp_path):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.gpu
def test_memory_that_runs_out_halves_the_passes() -> None:
    """Less than one pass over all points takes, by the allocator's own limit."""
    torch.manual_seed(0)
    network, x = mlp(2, 1, width=1024, depth=3).cuda(), torch.rand(4096, 2, device="cuda")
    free, total = torch.cuda.mem_get_info()
    expected = spectrain.empirical_ntk(network, x)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 2**28) / total)
    try:
        found = spectrain.empirical_ntk(network, x, memory_budget=free, out=torch.empty(len(x), len(x)))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    torch.testing.assert_close(found, expected.cpu(), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_the_program_on_a_gpu(tmp_path: Path) -> None:
    words = ("optimizer=sgd", "optimizer.lr=0.02", "trainer.precision=64-true")
    on_cpu, on_gpu = (train(tmp_path / kind, *words, f"trainer.accelerator={kind}") for kind in ("cpu", "gpu"))
    assert on_gpu["psnr"] == pytest.approx(on_cpu["psnr"], abs=1e-4)
