"""What the sample-side preconditioner gains on a photograph, and what it costs.

    python scripts/benchmarks/photograph.py                         # camera 64x64, full batch, SOAP
    python scripts/benchmarks/photograph.py --image skimage:coins   # one that nothing was tuned on
    python scripts/benchmarks/photograph.py --task 128  # or 128-any-batch, 256, fourier (against L-BFGS too), siren
    python scripts/benchmarks/photograph.py --set tail=0 metric=false  # an ablation: any setting of the task
    python scripts/benchmarks/photograph.py --task overhead         # S per step, without refreshes

Rules: the same learning rates (and batch sizes) are tried on both sides, each in a process of its own with one thread,
with and without S in turn; CPU seconds count everything but the measurement of the PSNR: kernels, eigenpairs,
interpolation. The output bias starts at the mean on both sides. "equal time" gives the run without S as many more steps
as fill the CPU time of the run with S, its schedule stretched. "time to its final PSNR" is the CPU time in which a run
with S first reaches the best PSNR without S, over that of the run without S; `short` runs with S, whose whole schedule
is a fraction of the baseline's time, count too.
"""

import argparse
import csv
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from pytorch_optimizer import SOAP
from torch import Tensor, nn

from spectrain import SamplePreconditioner, choose_landmarks, spectral_maps
from spectrain.data import ImageDataModule
from spectrain.models import center_output, fourier, mlp, siren
from spectrain.optim import apply_scales, cosine, scaled_groups
from spectrain.preconditioners import GridPreconditioner

COMMON: dict[str, Any] = {
    "size": 64, "model": "mlp", "width": 256, "batch_size": None, "steps": 300, "rates": [0.005, 0.01], "level": 30.0,
    "frequency": 10, "warmup": 10, "rank": 128, "landmarks": 576, "every": 20, "alpha": 0.7, "metric": False,
    "tail": 0.0, "short": [], "lengths": [1.0], "batch_sizes": None, "lbfgs": False,
    "batches": "random",
}  # fmt: skip
TASKS: dict[str, dict[str, Any]] = {
    "64": {"frequency": 2, "alpha": 1.0, "metric": True, "tail": 0.5, "rates": [0.01, 0.02], "short": [0.45]},
    "128": {"size": 128, "width": 512, "batch_size": 4096, "landmarks": 1024, "level": 25.0, "metric": True,
            "alpha": 0.8, "frequency": 5, "short": [0.25]},
    "128-any-batch": {"size": 128, "width": 512, "batch_sizes": [1024, 4096], "landmarks": 1024, "level": 25.0,
                      "metric": True, "alpha": 0.8, "frequency": 5, "rates": [0.01], "short": [0.5]},
    "256": {"size": 256, "batch_size": 4096, "steps": 600, "landmarks": 1024, "level": 24.0, "metric": True,
            "alpha": 1.0, "frequency": 5, "short": [0.5], "batches": "lattice"},
    "fourier": {"model": "fourier", "level": 40.0, "lbfgs": True, "steps": 150, "lengths": [0.4, 0.6, 1.0],
                "frequency": 2, "metric": True, "landmarks": 1024, "rates": [0.005]},
    "siren": {"model": "siren", "rates": [0.0005, 0.001], "alpha": 0.5, "rank": 64, "level": 35.0, "steps": 150},
}  # fmt: skip
MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": lambda width, parameterization: mlp(2, 1, width=width, parameterization=parameterization),
    "fourier": lambda width, parameterization: fourier(2, 1, width=width, parameterization=parameterization),
    "siren": lambda width, parameterization: siren(2, 1, width=width),
}


def build_optimizer(cell: dict[str, Any], network: nn.Module) -> torch.optim.Optimizer:
    """The base optimizer of the cell, the same on both sides."""
    rate = cell["rate"]
    if cell["optimizer"] == "lbfgs":
        return torch.optim.LBFGS(network.parameters(), max_iter=5, history_size=50, line_search_fn="strong_wolfe")
    if cell["optimizer"] == "adam":
        return apply_scales(torch.optim.Adam(scaled_groups(network), lr=rate))
    soap = SOAP(scaled_groups(network), lr=rate, precondition_frequency=cell["frequency"], weight_decay=0.0)
    return apply_scales(soap)


def build(cell: dict[str, Any]) -> tuple[ImageDataModule, nn.Module, torch.optim.Optimizer, Any]:
    """Data, network, optimizer and schedule of a cell; deterministic in its seed."""
    torch.manual_seed(cell["seed"])
    data = ImageDataModule(
        cell["image"],
        cell["size"],
        grayscale=True,
        batch_size=cell["batch_size"],
        batches=cell["batches"],
        seed=cell["seed"],
    )
    network = MODELS[cell["model"]](cell["width"], cell["parameterization"])
    center_output(network, data.target_mean)
    optimizer = build_optimizer(cell, network)
    schedule = None
    if cell["optimizer"] != "lbfgs":
        schedule = cosine(optimizer, max_steps=cell["steps"], warmup_steps=cell["warmup"])
    return data, network, optimizer, schedule


class Refresher:
    """S of a cell and its refreshes, timed."""

    def __init__(self, cell: dict[str, Any], data: ImageDataModule) -> None:
        self.cell, self.data, self.seconds, self._vectors = cell, data, 0.0, None
        g = spectral_maps.power(cell["alpha"])
        if cell["tail"]:
            self.S: SamplePreconditioner = GridPreconditioner(g, data.grid_shape, exponent=cell["tail"])
        else:
            self.S = SamplePreconditioner(g)
        self._landmarks = choose_landmarks(data.train_x, cell["landmarks"], grid_shape=data.grid_shape)

    def __call__(self, step: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Refresh if it is due."""
        every = self.cell["every"]
        if step % every and step not in (every // 4, every // 2):
            return
        started = time.process_time()
        metric = optimizer if self.cell["metric"] else None
        spectrum = self._landmarks.spectrum(network, self.cell["rank"], self._vectors, optimizer=metric)
        self._vectors = spectrum.eigenvectors
        self.S.take(spectrum, self._landmarks, network, self.data.train_x)
        self.seconds += time.process_time() - started


def run_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """Train once; return the curve [(steps, CPU seconds, PSNR)] and the seconds spent in refreshes."""
    begun = time.process_time()
    data, network, optimizer, schedule = build(cell)
    begun = time.process_time()
    refresher = Refresher(cell, data) if cell["precondition"] else None
    batches, curve, measuring = iter(data.train_dataloader()), [], 0.0
    for step in range(cell["steps"] + 1):
        if step % 5 == 0 or step == cell["steps"] or cell["optimizer"] == "lbfgs":  # whose steps are dear
            paused = time.process_time()
            curve.append((step, paused - begun - measuring, psnr(network, data)))
            measuring += time.process_time() - paused
        if step == cell["steps"]:
            break
        if refresher:
            refresher(step, network, optimizer)
        optimizer.step(closure(network, refresher.S if refresher else None, optimizer, batches))
        if schedule:
            schedule.step()
    refresh = refresher.seconds if refresher else 0.0
    return {**cell, "psnr": curve[-1][2], "cpu_seconds": curve[-1][1], "refresh_seconds": refresh, "curve": curve}


def closure(
    network: nn.Module, S: SamplePreconditioner | None, optimizer: torch.optim.Optimizer, batches: Iterator[Any]
) -> Callable[[], Tensor]:
    """Loss and gradient of the next batch, as often as the optimizer asks."""
    x, y, index = next(batches)

    def evaluate() -> Tensor:
        output = network(x)
        loss = nn.functional.mse_loss(output if S is None else S(output, index), y)
        optimizer.zero_grad()
        loss.backward()
        return loss

    return evaluate


@torch.no_grad()
def psnr(network: nn.Module, data: ImageDataModule) -> float:
    """Of the whole image, values in [-1, 1]."""
    errors = [(network(x).clamp(-1, 1) - y).double().square().sum() for x, y, _ in data.val_dataloader()]
    return float(10 * torch.log10(4 * data.image.numel() / sum(errors)))


def in_own_process(cell: dict[str, Any], core: int | None) -> dict[str, Any]:
    """One cell in a fresh process with one thread, so that no cell warms or slows the next."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--cell", json.dumps(cell)]
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    side = "with S" if cell["precondition"] else "without"
    print(
        f"  {cell['optimizer']:<5} {side:<8} rate {cell['rate']:<6} batch {cell['batch_size'] or 'full':<5}"
        f" {cell['steps']:>4} steps: {result['psnr']:6.2f} dB"
        f", {result['cpu_seconds']:5.1f} CPU s ({result['refresh_seconds']:.1f} in refreshes)",
        flush=True,
    )
    return result


def seconds_to(level: float, results: list[dict[str, Any]]) -> float:
    """Fewest CPU seconds in which one of the runs reached `level` dB; inf if none did."""
    return min((t for result in results for _, t, value in result["curve"] if value >= level), default=math.inf)


def time_ratio(level: float, ours: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> float | str:
    """CPU seconds to `level` dB, with S over without."""
    theirs = seconds_to(level, baseline)
    return seconds_to(level, ours) / theirs if math.isfinite(theirs) else "never reached without S"


def trials(cell: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every batch size, learning rate and length of the schedule.

    A small batch takes twice the steps: SOAP's own part of a step does not shrink with the batch.
    """
    for batch_size, rate, length in itertools.product(
        cell["batch_sizes"] or [cell["batch_size"]], cell["rates"], cell["lengths"]
    ):
        length = 2 * length if cell["batch_sizes"] and batch_size <= 1024 else length
        yield {**cell, "batch_size": batch_size, "rate": rate, "steps": round(length * cell["steps"])}


def stretched(run: dict[str, Any], seconds: float, core: int | None) -> dict[str, Any]:
    """The same run with as many steps as fill `seconds`."""
    cell = {key: value for key, value in run.items() if key not in ("psnr", "cpu_seconds", "refresh_seconds", "curve")}
    return in_own_process({**cell, "steps": round(run["steps"] * seconds / run["cpu_seconds"])}, core)


def compare(cell: dict[str, Any], core: int | None) -> dict[str, Any]:
    """Both sides in every trial, the better side's time given to the other; one row of the table."""
    sides: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for trial in trials(cell):
        for side in (False, True):
            sides[side].append(in_own_process({**trial, "precondition": side}, core))
    without, ours = (max(sides[side], key=lambda result: result["psnr"]) for side in (False, True))
    sides[False].append(stretched(without, ours["cpu_seconds"], core))
    best = max(sides[False], key=lambda result: result["psnr"])
    # Never more time than the run with S took: a run without S that had longer counts for the time to its PSNR only.
    long = seconds_to(best["psnr"], sides[False])
    shorts = [stretched(run, part * long, core) for part in cell["short"] for run in sides[True]]
    tried = [*sides[True], *shorts]
    row = {
        **{key: cell[key] for key in ("task", "size", "optimizer", "parameterization", "seed")},
        "image": cell["image"] or "camera",
        "settings": " ".join(
            f"{key}={cell[key]}" for key in ("frequency", "warmup", "alpha", "metric", "tail", "rank")
        ),
        "without": without["psnr"],
        "without, equal time": sides[False][-1]["psnr"],
        "with S": ours["psnr"],
        "gain, equal time": ours["psnr"] - best["psnr"],
        "time to its final PSNR, with / without": time_ratio(best["psnr"], tried, sides[False]),
        "the same, long runs only": time_ratio(best["psnr"], sides[True], sides[False]),
        f"time to {cell['level']:g} dB, with / without": time_ratio(cell["level"], tried, sides[False]),
        "share of refreshes": ours["refresh_seconds"] / ours["cpu_seconds"],
    }
    if cell["lbfgs"]:
        alone = {"optimizer": "lbfgs", "rate": 1.0, "precondition": False, "steps": cell["steps"] // 4}
        lbfgs = in_own_process({**cell, **alone}, core)
        row["L-BFGS"] = lbfgs["psnr"]
        row[f"time to {cell['level']:g} dB, with S / L-BFGS"] = time_ratio(cell["level"], tried, [lbfgs])
    return row


def overhead(seed: int) -> None:
    """CPU seconds of a step with S over one without, interleaved in one process; no refresh in between."""
    torch.set_num_threads(1)
    for name in ("64", "128"):
        cell = {**COMMON, **TASKS[name], "image": None, "seed": seed, "optimizer": "soap", "rate": 0.01}
        for rank in (64, 128, 256):
            data, network, optimizer, _ = build({**cell, "parameterization": "standard"})
            refresher = Refresher({**cell, "rank": rank}, data)
            refresher(0, network, optimizer)
            batches, spent = iter(data.train_dataloader()), {False: 0.0, True: 0.0}
            for step in range(120):
                side = bool(step // 10 % 2)  # tens: SOAP does its dear step every tenth time
                started = time.process_time()
                optimizer.step(closure(network, refresher.S if side else None, optimizer, batches))
                spent[side] += (time.process_time() - started) * (step >= 20)
            print(f"task {name}, k = {rank}: a step with S takes {spent[True] / spent[False]:.3f} of one without")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[*TASKS, "overhead"], default="64")
    parser.add_argument("--image", default=None, help="a file, or skimage:NAME; default camera")
    parser.add_argument("--optimizer", choices=["soap", "adam"], default="soap")
    parser.add_argument("--rates", nargs="+", type=float, default=None, help="learning rates tried on both sides")
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--parameterization", choices=["ntk", "standard"], default="standard")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other settings of the task, as JSON")
    parser.add_argument("--core", type=int, default=None, help="pin every run to this core (Linux)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/photograph.csv"))
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        torch.set_num_threads(1)
        print(json.dumps(run_cell(json.loads(args.cell))))
        return
    if args.task == "overhead":
        overhead(args.seed[0])
        return
    cell = {**COMMON, **TASKS[args.task], "task": args.task, "image": args.image, "optimizer": args.optimizer}
    cell |= {"parameterization": args.parameterization, "rates": args.rates or cell["rates"]}
    settings = {key: json.loads(value) for key, value in (pair.split("=", 1) for pair in args.set)}
    if unknown := set(settings) - set(cell):
        parser.error(f"--set knows {', '.join(COMMON)}; not {', '.join(sorted(unknown))}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in args.seed:
        row = compare({**cell, **settings, "seed": seed}, args.core)
        with args.out.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerow(row)
        for name, value in row.items():
            print(f"{name:>42}: {value if isinstance(value, str) else f'{value:.4g}'}")
        print(flush=True)


if __name__ == "__main__":
    main()
