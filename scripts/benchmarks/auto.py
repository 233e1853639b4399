"""Does `preconditioner=auto` ever cost more than the better of on and off?

    python scripts/benchmarks/auto.py                                     # five networks, SOAP and Adam, 64x64
    python scripts/benchmarks/auto.py --model siren --optimizer soap --size 128
    python scripts/benchmarks/auto.py --model mlp --optimizer soap --sides off on guarded
    python scripts/benchmarks/auto.py --model finer --optimizer soap --size 48 --steps 60 --sides off on 10 20 40
    python scripts/benchmarks/auto.py --steps 5 --sides off  # what auto sees in five steps without S

Each run is a process of its own with one thread, under the Trainer, full batch, the configuration's defaults for model,
optimizer and spectrum. Everything is charged: kernels, eigenpairs, interpolation, looks, trials. The target is the
final PSNR (of the training loss) of the run without S, less .1 dB, for all sides. "steps" and "CPU" are the steps and
the CPU seconds to that target, over those of the better of off and on; steps are exact, CPU seconds waver with what
else the machine does. "ratios" are lambda_1/lambda_64 after a run without S: of J J^T, and of J D J^T in the
optimizer's metric.
"""

import argparse
import functools
import json
import math
import os
import subprocess
import sys
import time
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_optimizer import SOAP

from spectrain import AutoPreconditioner, SamplePreconditioner, models, spectral_maps
from spectrain.data import ImageDataModule
from spectrain.lightning import AutoCallback, SpectrumCallback, WideNetworkModule
from spectrain.optim import cosine
from spectrain.preconditioners.choice import eigenvalue_ratio

RATES = {"mlp": 0.01, "fourier": 0.01, "siren": 0.001, "gauss": 0.001, "finer": 0.001}  # conf/model
OPTIMIZERS = {
    "soap": functools.partial(SOAP, betas=(0.95, 0.95), precondition_frequency=10, weight_decay=0.0),
    "adam": torch.optim.Adam,
}
SIDES = ("off", "on", "auto", "guarded")


class Curve(pl.Callback):
    """(CPU seconds since the start, loss) of every step."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []

    def on_train_start(self, *_: Any) -> None:
        """Start the clock."""
        self.begun = time.process_time()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, *_: Any) -> None:
        """Add a point."""
        self.points.append((time.process_time() - self.begun, float(outputs["loss"])))


class Until(pl.Callback):
    """S goes off for good at a step, in place of what would be due there."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        """Stands before the refreshes."""
        if trainer.global_step == self.step:
            module.preconditioner.strength, module.preconditioner.needs_spectrum = 0.0, False


def run_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """Train once; the curve, and what was spent and decided."""
    pl.seed_everything(cell["seed"], verbose=False)
    data = ImageDataModule(size=cell["size"])
    network = getattr(models, cell["model"])(2, 1)
    models.center_output(network, data.target_mean)
    side, S = cell["side"], SamplePreconditioner(spectral_maps.power(0.7))
    preconditioner = None if side == "off" else AutoPreconditioner([S]) if side == "auto" else S
    module = WideNetworkModule(
        network,
        functools.partial(OPTIMIZERS[cell["optimizer"]], lr=RATES[cell["model"]]),
        schedule=functools.partial(cosine, max_steps=cell["steps"]),
        scale_free=True,
        preconditioner=preconditioner,
        guard=side == "guarded",
    )
    spectrum, curve = SpectrumCallback(rank=128, subset_size=576), Curve()
    auto = AutoCallback(spectrum)
    until = [Until(int(side))] if side.isdecimal() else []
    trainer = pl.Trainer(
        max_steps=cell["steps"], max_epochs=-1, accelerator="cpu", limit_val_batches=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[curve, *until, spectrum, auto],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    guard = {} if module.guard is None else {"guard": (module.guard.shrunk_steps, module.guard.rejected_steps)}
    choice: dict[str, Any] = {}
    if isinstance(preconditioner, AutoPreconditioner):
        choice = {"on": preconditioner.name, "looks": [round(ratio, 1) for ratio in preconditioner.looks]}
    if side == "off":
        found = (spectrum.spectrum_now(module, optimizer) for optimizer in (None, trainer.optimizers[0]))
        choice = {"ratios": [round(eigenvalue_ratio(each), 1) for each in found]}
    spent = {"refreshes": spectrum.refreshes, "share": spectrum.share, "trial_seconds": auto.trial_seconds}
    return {**cell, "curve": curve.points, **spent, **guard, **choice}


def in_own_process(cell: dict[str, Any]) -> dict[str, Any]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--cell", json.dumps(cell)]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def psnr(loss: float) -> float:
    """In dB, for values in [-1, 1]."""
    return -10 * math.log10(loss / 4)


def reached(result: dict[str, Any], level: float) -> tuple[int, float]:
    """(steps, CPU seconds) to a PSNR; inf where it was not reached."""
    found = ((step, t) for step, (t, loss) in enumerate(result["curve"]) if psnr(loss) >= level)
    return next(found, (math.inf, math.inf))


def compare(cell: dict[str, Any], sides: list[str]) -> None:
    results = {side: in_own_process({**cell, "side": side}) for side in sides}
    level = psnr(results["off"]["curve"][-1][1]) - 0.1
    places = {side: reached(result, level) for side, result in results.items()}
    better = [min(places[side][i] for side in ("off", "on") if side in places) for i in (0, 1)]
    for side, result in results.items():
        steps, seconds = (place / best for place, best in zip(places[side], better, strict=True))
        notes = {name: result[name] for name in ("on", "looks", "guard", "ratios") if name in result}
        print(
            f"{cell['model']:<8}{cell['optimizer']:<5}{cell['size']:>4}  {side:<8}"
            f"{psnr(result['curve'][-1][1]):6.2f} dB"
            f"  to {level:.1f} dB: steps {steps:5.3f}  CPU {seconds:5.3f}  refreshes {result['refreshes']:>2}"
            f" ({100 * result['share']:.1f} % of the time)  trials {result['trial_seconds']:.2f} s  {notes or ''}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(RATES), default=list(RATES))
    parser.add_argument("--optimizer", nargs="+", choices=list(OPTIMIZERS), default=list(OPTIMIZERS))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sides", nargs="+", default=["off", "on", "auto"], help=f"{', '.join(SIDES)}, or steps")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := [side for side in args.sides if side not in SIDES and not side.isdecimal()]:
        parser.error(f"there is no side {', '.join(unknown)}; there are {', '.join(SIDES)}, and numbers of steps")
    if args.cell:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        print(json.dumps(run_cell(json.loads(args.cell))))
        return
    for model in args.model:
        for optimizer in args.optimizer:
            cell = {"model": model, "optimizer": optimizer, "size": args.size, "steps": args.steps, "seed": args.seed}
            compare(cell, args.sides)


if __name__ == "__main__":
    main()
