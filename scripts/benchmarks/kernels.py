"""The empirical NTK, ours against PyTorch's own ways, as ratios inside one run.

    python scripts/benchmarks/kernels.py                 # every case, CPU time, peak memory
    python scripts/benchmarks/kernels.py mlp transformer --threads 2
    python scripts/benchmarks/kernels.py resnet --devices cuda
    python scripts/benchmarks/kernels.py mlp-peers --rivals curvlinops   # of the case's rivals, only these

Rivals: the two forms of PyTorch's tutorial "Neural Tangent Kernels" (per-sample Jacobians by vmap(jacrev) and their
contraction, "published" with the two Jacobians of the tutorial's function and "contraction" with one for both sides;
NTK-vector products by vmap(vjp, jvp)), our own method="jacobian" (case weight-norm), and neural-tangents, nngeometry
and curvlinops where they are installed (case mlp-peers). All ways run in every round, one after the other, after a
round that is not counted; times are medians; the machine's own matrix-multiply rate is measured in between. CPU time
is summed over threads. Memory is the peak of the resident set beyond the start of the call, in a process of its own.
Where there is a GPU, all is done there too, in wall seconds after a synchronisation, with the peak of its allocator, in
full float32.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from kernel_rivals import OPTIONAL, RIVALS, Way, installed
from torch import Tensor, nn

from spectrain.kernels import empirical_ntk


@dataclass(frozen=True)
class Case:
    """A network, its inputs, the flops of its layer Gram if it has a simple count, and our memory beyond K."""

    make: Callable[[], tuple[nn.Module, Tensor]]
    rivals: tuple[str, ...] = ("published", "contraction")
    gram_flops: float | None = None
    budget: str | None = None


class Block(nn.Module):
    """A residual block of two 3x3 convolutions with batch normalisation."""

    def __init__(self, c: int, o: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        same = stride == 1 and c == o
        self.skip = nn.Identity() if same else nn.Sequential(nn.Conv2d(c, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x: Tensor) -> Tensor:
        """relu(x + branch(x))."""
        h = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (h + self.skip(x)).relu()


def resnet(width: int, n: int, outputs: int) -> tuple[nn.Module, Tensor]:
    """ResNet-18's shape at 32x32 with `width` channels in the first stage (64 is the original)."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    c = width
    for stage in range(4):
        for block in range(2):
            o = width * 2**stage
            layers.append(Block(c, o, 2 if stage and not block else 1))
            c = o
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, outputs))
    return module.eval(), torch.randn(n, 3, 32, 32)


def mlp(n: int, d: int, width: int, depth: int) -> tuple[nn.Module, Tensor]:
    layers: list[nn.Module] = [nn.Linear(d, width), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 1)), torch.randn(n, d)


class Sine(nn.Module):
    """sin(30 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """sin(30 x)."""
        return torch.sin(30 * x)


def siren(n: int) -> tuple[nn.Module, Tensor]:
    layers: list[nn.Module] = []
    for fan_in in (2, 256, 256):
        layers += [nn.Linear(fan_in, 256), Sine()]
    module = nn.Sequential(*layers, nn.Linear(256, 3))
    with torch.no_grad():
        for layer in module[2::2]:
            layer.weight.uniform_(-((6 / 256) ** 0.5) / 30, (6 / 256) ** 0.5 / 30)
    return module, torch.rand(n, 2) * 2 - 1


class Mean(nn.Module):
    """The mean over tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean over tokens."""
        return x.mean(1)


def transformer(n: int, tokens: int, width: int, outputs: int) -> tuple[nn.Module, Tensor]:
    layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    return nn.Sequential(encoder, Mean(), nn.Linear(width, outputs)).eval(), torch.randn(n, tokens, width)


def weight_normalised(n: int, width: int) -> tuple[nn.Module, Tensor]:
    normed = nn.utils.parametrizations.weight_norm
    layers = [part for _ in range(4) for part in (normed(nn.Linear(width, width)), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(width, 1)), torch.randn(n, width)


def gram_flops(n: int, d: int, width: int, depth: int) -> float:
    """Forward, backward with respect to inputs, and the layer Gram without its symmetry."""
    sizes = [(d, width)] + [(width, width)] * (depth - 1) + [(width, 1)]
    return sum(4.0 * n * i * o + 2.0 * n * n * (i + 1 + o) for i, o in sizes)


# Points, tokens, width.
_TRANSFORMERS = (16, 32, 128), (128, 32, 128), (64, 8, 128), (64, 16, 128), (64, 64, 128), (64, 32, 64), (32, 32, 256)

CASES = {
    "mlp": Case(lambda: mlp(512, 512, 512, 4), gram_flops=gram_flops(512, 512, 512, 4)),
    "mlp-4096": Case(lambda: mlp(4096, 2, 256, 3), rivals=("published",), gram_flops=gram_flops(4096, 2, 256, 3)),
    "mlp-peers": Case(lambda: mlp(512, 512, 512, 4), rivals=("published", *OPTIONAL)),
    # The tutorial's second form needs n^2 W^2 numbers: 256 GiB for n = W = 512.
    "mlp-32": Case(lambda: mlp(32, 512, 512, 4), rivals=("published", "contraction", "products")),
    "siren": Case(lambda: siren(512)),
    "resnet": Case(lambda: resnet(64, 8, 10)),
    "transformer": Case(lambda: transformer(64, 32, 128, 10)),
    # 256 points in several blocks; the tutorial's function would need 20 GiB.
    "transformer-256": Case(lambda: transformer(256, 32, 128, 10), rivals=(), budget="512MiB"),
    **{
        f"transformer-{n}-{tokens}-{width}": Case(partial(transformer, n, tokens, width, 10), rivals=("published",))
        for n, tokens, width in _TRANSFORMERS
    },
    "weight-norm": Case(lambda: weight_normalised(256, 256), rivals=("jacobian",)),
}


def ways_of(name: str) -> dict[str, Way]:
    budget = CASES[name].budget
    return {"ours": lambda module, x: empirical_ntk(module, x, memory_budget=budget, progress=False), **RIVALS}


def made(name: str, device: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    module, x = CASES[name].make()
    return module.to(device), x.to(device)


def seconds_of(run: Callable[[], object], device: str) -> float:
    """CPU seconds, or wall seconds until a GPU has finished."""
    if device == "cpu":
        start = time.process_time()
        run()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def gemm_rate(device: str) -> float:
    """Flops per second of a float32 product of two matrices, 1024 x 1024 or, on a GPU, 8192 x 8192."""
    n = 1024 if device == "cpu" else 8192
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    return 2 * n**3 / min(seconds_of(lambda: a @ b, device) for _ in range(10))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def peak_bytes(run: Callable[[], object], device: str) -> int:
    """The highest resident set, or allocation on a GPU, during a call, beyond that before it."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    start, peak, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], resident())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        run()
    finally:
        peak[0] = max(peak[0], resident())
        done.set()
        thread.join()
    return peak[0] - start


def memory(case: str, way: str, threads: int, device: str) -> float:
    """Peak MiB of one way, in a process of its own (allocators keep what they had)."""
    command = [sys.executable, __file__, case, "--memory-of", way, "--threads", str(threads), "--devices", device]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(answer.stdout.splitlines()[-1]))


def compare(name: str, rivals: list[str], rounds: int, threads: int, device: str) -> dict[str, object]:
    case, (module, x), run = CASES[name], made(name, device), ways_of(name)
    wanted = [rival for rival in case.rivals if not rivals or rival in rivals]
    ways = ["ours", *filter(installed, wanted)]
    for missing in sorted(set(wanted) - set(ways)):
        print(f"{missing} is not installed: left out.", file=sys.stderr)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    rates, kernels = [], {}
    for k in range(rounds + 1):
        rates.append(gemm_rate(device))
        for way in ways:
            spent = seconds_of(lambda w=way: kernels.__setitem__(w, run[w](module, x)), device)
            seconds[way] += [spent] if k else []
    typical = {way: median(times) for way, times in seconds.items()}
    rate = median(rates)
    result: dict[str, object] = {"case": name, "device": device, "rounds": rounds, "seconds": typical}
    result["gemm_gflops"] = rate / 1e9
    result["fastest"] = {way: min(times) for way, times in seconds.items()}
    result["times_faster_than"] = {way: typical[way] / typical["ours"] for way in ways[1:]}
    exact = empirical_ntk(module, x, dtype=torch.float64, progress=False)
    result["error_against_float64"] = {w: float((kernels[w] - exact).abs().max() / exact.abs().max()) for w in ways}
    if case.gram_flops:
        result["share_of_gemm_rate"] = case.gram_flops / typical["ours"] / rate
    peaks = {way: memory(name, way, threads, device) for way in ways}
    result["peak_mib"] = peaks
    result["share_of_the_peak_of"] = {way: peaks["ours"] / peaks[way] for way in ways[1:]}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], default=list(CASES))
    parser.add_argument("--rivals", nargs="*", choices=list(RIVALS), default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    parser.add_argument("--devices", nargs="*", choices=["cpu", "cuda"], default=devices)
    parser.add_argument("--memory-of", choices=["ours", *RIVALS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.allow_tf32 = False
    if arguments.memory_of:
        device = arguments.devices[0]
        module, x = made(arguments.cases[0], device)
        run = ways_of(arguments.cases[0])
        run["ours"](module, x[:2])
        print(json.dumps(peak_bytes(lambda: run[arguments.memory_of](module, x), device) / 2**20))
        return
    for device in arguments.devices:
        for name in arguments.cases:
            result = compare(name, arguments.rivals, arguments.rounds, arguments.threads, device)
            print(json.dumps(result, indent=1), flush=True)


if __name__ == "__main__":
    main()
