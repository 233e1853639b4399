"""What the sample-side preconditioner gains on a photograph, and what it costs.

    python scripts/benchmarks/photograph.py                        # camera 64x64, SOAP and Adam
    python scripts/benchmarks/photograph.py --image skimage:coins  # one that nothing was tuned on
    python scripts/benchmarks/photograph.py --task 128             # camera 128x128, 3x512, batches of 4,096
    python scripts/benchmarks/photograph.py --task overhead        # S per step, without refreshes

Rules: the same learning rates are tried on both sides, each in a process of its own with one thread, with and without S
in turn; CPU seconds count everything but the measurement of the PSNR: kernels, eigenpairs, interpolation. The output
bias starts at the mean on both sides. "equal time" gives the run without S as many more steps as fill the CPU time of
the run with S, its cosine schedule stretched. Times to a PSNR are those of the fastest run of each side.
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_optimizer import SOAP

from spectrain import SamplePreconditioner, choose_landmarks, spectral_maps
from spectrain.data import ImageDataModule
from spectrain.models import center_output, mlp
from spectrain.optim import apply_scales, cosine, scaled_groups

TASKS: dict[str, dict[str, Any]] = {
    "64": {"size": 64, "width": 256, "batch_size": None, "rank": 128, "landmarks": 576, "target": 30.0},
    "128": {"size": 128, "width": 512, "batch_size": 4096, "rank": 128, "landmarks": 1024, "target": 25.0},
}
OPTIMIZERS = {
    "soap": lambda params, lr: SOAP(params, lr=lr, betas=(0.95, 0.95), precondition_frequency=10, weight_decay=0.0),
    "adam": lambda params, lr: torch.optim.Adam(params, lr=lr),
}
RATES = {"soap": (0.005, 0.01, 0.02), "adam": (0.005, 0.01, 0.02)}
STEPS, EVERY, ALPHA = 300, 20, 0.7


def run_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """Train once; return the curve [(steps, CPU seconds, PSNR)] and the seconds spent in refreshes."""
    torch.manual_seed(cell["seed"])
    data = ImageDataModule(
        cell["image"], cell["size"], grayscale=True, batch_size=cell["batch_size"], seed=cell["seed"]
    )
    network = mlp(2, 1, width=cell["width"], depth=3, parameterization=cell["parameterization"])
    center_output(network, data.target_mean)
    optimizer = apply_scales(OPTIMIZERS[cell["optimizer"]](scaled_groups(network), cell["rate"]))
    schedule = cosine(optimizer, max_steps=cell["steps"])
    S = SamplePreconditioner(spectral_maps.power(ALPHA))
    landmarks = None
    if cell["precondition"]:
        landmarks = choose_landmarks(data.train_x, cell["landmarks"], grid_shape=data.grid_shape)
    batches, spectrum, refresh = iter(data.train_dataloader()), None, 0.0
    curve, measuring, begun = [], 0.0, time.process_time()
    for step in range(cell["steps"] + 1):
        if step % 5 == 0:
            paused = time.process_time()
            curve.append((step, paused - begun - measuring, psnr(network, data)))
            measuring += time.process_time() - paused
        if step == cell["steps"]:
            break
        if landmarks is not None and (step % EVERY == 0 or step in (EVERY // 4, EVERY // 2)):
            started = time.process_time()
            spectrum = landmarks.spectrum(network, cell["rank"], None if spectrum is None else spectrum.eigenvectors)
            S.update(landmarks.extend(spectrum, data.train_x, network))
            refresh += time.process_time() - started
        x, y, index = next(batches)
        loss = torch.nn.functional.mse_loss(S(network(x), index), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return {**cell, "psnr": curve[-1][2], "cpu_seconds": curve[-1][1], "refresh_seconds": refresh, "curve": curve}


@torch.no_grad()
def psnr(network: torch.nn.Module, data: ImageDataModule) -> float:
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
        f"  {cell['optimizer']:<5} {side:<8} rate {cell['rate']:<6} {cell['steps']:>4} steps: {result['psnr']:6.2f} dB"
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


def compare(cell: dict[str, Any], rates: tuple[float, ...], core: int | None) -> dict[str, Any]:
    """Both sides at every rate, then the side without S in equal time; one row of the table."""
    sides: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for rate in rates:
        for side in (False, True):
            sides[side].append(in_own_process({**cell, "rate": rate, "precondition": side}, core))
    without, ours = (max(sides[side], key=lambda result: result["psnr"]) for side in (False, True))
    steps = round(cell["steps"] * ours["cpu_seconds"] / without["cpu_seconds"])
    stretched = in_own_process({**cell, "rate": without["rate"], "precondition": False, "steps": steps}, core)
    baseline = [*sides[False], stretched]
    best = max(result["psnr"] for result in baseline)
    return {
        "image": cell["image"] or "camera",
        "size": cell["size"],
        "optimizer": cell["optimizer"],
        "parameterization": cell["parameterization"],
        "seed": cell["seed"],
        "without": without["psnr"],
        "without, equal time": stretched["psnr"],
        "with S": ours["psnr"],
        "gain, equal time": ours["psnr"] - max(stretched["psnr"], without["psnr"]),
        f"time to {cell['target']:g} dB, with / without": time_ratio(cell["target"], sides[True], baseline),
        "time to the best without, with / without": time_ratio(best, sides[True], baseline),
        "share of refreshes": ours["refresh_seconds"] / ours["cpu_seconds"],
    }


def overhead(seed: int) -> None:
    """CPU seconds of a step with S over one without, interleaved in one process; no refresh in between."""
    torch.set_num_threads(1)
    for name, task in TASKS.items():
        torch.manual_seed(seed)
        data = ImageDataModule(None, task["size"], batch_size=task["batch_size"])
        network = mlp(2, 1, width=task["width"], depth=3)
        optimizer = OPTIMIZERS["soap"](scaled_groups(network), 0.01)
        landmarks = choose_landmarks(data.train_x, task["landmarks"], grid_shape=data.grid_shape)
        for rank in (64, 128, 256):
            S = SamplePreconditioner(spectral_maps.power(ALPHA))
            S.update(landmarks.extend(landmarks.spectrum(network, rank), data.train_x, network))
            batches, spent = iter(data.train_dataloader()), {False: 0.0, True: 0.0}
            for step in range(120):
                side = bool(step // 10 % 2)  # tens: SOAP does its dear step every tenth time
                x, y, index = next(batches)
                started = time.process_time()
                output = network(x)
                loss = torch.nn.functional.mse_loss(S(output, index) if side else output, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                spent[side] += (time.process_time() - started) * (step >= 20)
            print(f"task {name}, k = {rank}: a step with S takes {spent[True] / spent[False]:.3f} of one without")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[*TASKS, "overhead"], default="64")
    parser.add_argument("--image", default=None, help="a file, or skimage:NAME; default camera")
    parser.add_argument("--optimizer", nargs="+", choices=list(OPTIMIZERS), default=list(OPTIMIZERS))
    parser.add_argument("--rates", nargs="+", type=float, default=None, help="learning rates tried on both sides")
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--parameterization", choices=["ntk", "standard"], default="standard")
    parser.add_argument("--rank", type=int, default=None)
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
    rows = []
    for optimizer in args.optimizer:
        for seed in args.seed:
            cell = {**TASKS[args.task], "steps": STEPS, "image": args.image, "optimizer": optimizer, "seed": seed}
            cell["parameterization"] = args.parameterization
            cell["rank"] = args.rank or cell["rank"]
            rows.append(compare(cell, tuple(args.rates or RATES[optimizer]), args.core))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(
            "\n".join(
                f"{name:>42}: {value if isinstance(value, str) else f'{value:.4g}'}" for name, value in row.items()
            )
        )
        print()


if __name__ == "__main__":
    main()
