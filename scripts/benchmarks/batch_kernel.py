"""What S from each batch's own kernel costs per step, and what it gains.

    python scripts/benchmarks/batch_kernel.py                  # extra time per step over a plain SOAP step
    python scripts/benchmarks/batch_kernel.py --task gain      # PSNR after 200 steps, and without S in equal time
    python scripts/benchmarks/batch_kernel.py --task gain --ways last2-256 last --seeds 0 1 2

Camera 128x128, batches of 1,024, ReLU 3x512 in standard parameterisation (He et al.), SOAP with its dear step every
tenth time, output bias at the mean, one thread, CPU seconds. "cost" trains all ways in one process in turn, ten steps
each, and prints ratios; "gain" gives every run a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from pytorch_optimizer import SOAP

from spectrain import BatchPreconditioner, spectral_maps
from spectrain.data import ImageDataModule
from spectrain.models import center_output, mlp
from spectrain.optim import cosine

WAYS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "whole": {"layers": None, "landmarks": None},
    "all-256": {"layers": None, "landmarks": 256},
    "all-128": {"layers": None, "landmarks": 128},
    "last2-256": {"layers": 2, "landmarks": 256},
    "last2-128": {"layers": 2, "landmarks": 128},
    "last": {"layers": 1},
}


class Training:
    """Network, optimizer and S; `step` makes one step and returns its CPU seconds."""

    def __init__(self, way: str, alpha: float, seed: int, rate: float, steps: int, image: str | None) -> None:
        torch.manual_seed(seed)
        self.data = ImageDataModule(image, 128, grayscale=True, batch_size=1024, seed=seed)
        self.network = mlp(2, 1, width=512, depth=3, parameterization="standard")
        center_output(self.network, self.data.target_mean)
        self.optimizer = SOAP(
            self.network.parameters(), lr=rate, betas=(0.95, 0.95), precondition_frequency=10, weight_decay=0.0
        )
        self.schedule = cosine(self.optimizer, max_steps=steps)
        settings = WAYS[way]
        self.S = None if settings is None else BatchPreconditioner(spectral_maps.power(alpha), **settings)
        self.batches: Iterator[Any] = iter(self.data.train_dataloader())

    def step(self) -> float:
        """One step; its CPU seconds, without those of the data."""
        x, y, _ = next(self.batches)
        begun = time.process_time()
        output = self.network(x) if self.S is None else self.S.run(self.network, x)
        loss = torch.nn.functional.mse_loss(output, y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return time.process_time() - begun

    @torch.no_grad()
    def psnr(self) -> float:
        """Of the whole image, values in [-1, 1]."""
        errors = [(self.network(x).clamp(-1, 1) - y).double().square().sum() for x, y, _ in self.data.val_dataloader()]
        return float(10 * torch.log10(4 * self.data.image.numel() / sum(errors)))


def cost(ways: list[str], alpha: float) -> None:
    """Extra time per step, all ways in turn in one process."""
    runs = {way: Training(way, alpha, 0, 0.01, 1000, None) for way in ["none", *(w for w in ways if w != "none")]}
    spent = dict.fromkeys(runs, 0.0)
    for turn in range(4):
        for way, training in runs.items():
            seconds = sum(training.step() for _ in range(10))
            spent[way] += seconds * (turn > 0)  # the first ten warm up
    for way, seconds in spent.items():
        print(f"{way:>9}: {seconds / 30 * 1e3:6.1f} ms a step, {100 * (seconds / spent['none'] - 1):+5.1f} %")


def run_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """Train once."""
    training = Training(cell["way"], cell["alpha"], cell["seed"], cell["rate"], cell["steps"], cell["image"])
    seconds = sum(training.step() for _ in range(cell["steps"]))
    return {**cell, "psnr": training.psnr(), "cpu_seconds": seconds}


def in_own_process(cell: dict[str, Any]) -> dict[str, Any]:
    """One cell in a fresh process with one thread."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--cell", json.dumps(cell)]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    print(
        f"{cell['way']:>9}, seed {cell['seed']}, rate {cell['rate']}, alpha {cell['alpha']}: {result['psnr']:.2f} dB "
        f"after {cell['steps']} steps, {result['cpu_seconds']:.1f} CPU s",
        flush=True,
    )
    return result


def gain(cell: dict[str, Any], ways: list[str], rates: list[float]) -> None:
    """All ways at the same steps, every rate for each; then without S for as long as the longest of them took."""
    results = {way: [in_own_process({**cell, "way": way, "rate": rate}) for rate in rates] for way in ["none", *ways]}
    best = {way: max(cells, key=lambda result: result["psnr"]) for way, cells in results.items()}
    longest = max(result["cpu_seconds"] for result in best.values())
    steps = round(cell["steps"] * longest / best["none"]["cpu_seconds"])
    in_own_process({**cell, "way": "none", "rate": best["none"]["rate"], "steps": steps})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["cost", "gain"], default="cost")
    parser.add_argument("--ways", nargs="+", choices=[way for way in WAYS if way != "none"], default=list(WAYS)[1:])
    parser.add_argument("--alpha", type=float, default=0.5, help="of the power map")
    parser.add_argument("--rates", nargs="+", type=float, default=[0.01])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--image", default=None, help="a file, or skimage:NAME; default camera")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.cell:
        print(json.dumps(run_cell(json.loads(args.cell))))
    elif args.task == "cost":
        cost(args.ways, args.alpha)
    else:
        for seed in args.seeds:
            cell = {"alpha": args.alpha, "seed": seed, "steps": args.steps, "image": args.image}
            gain(cell, args.ways, args.rates)


if __name__ == "__main__":
    main()
