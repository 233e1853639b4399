"""What a finished run leaves in its folder: figures with their raw numbers, summary.json, and a short table."""

import json
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import wandb
from matplotlib.figure import Figure
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from rich.console import Console
from rich.table import Table

import spectrain
from spectrain import plots
from spectrain.lightning.history import RunHistory, predict_all
from spectrain.lightning.module import WideNetworkModule
from spectrain.lightning.spectrum_callback import SpectrumCallback
from spectrain.preconditioners import AutoPreconditioner
from spectrain.spectrum.decay_law import decay_law
from spectrain.spectrum.measures import condition_number

ENOUGH_MODES = 8  # for an exponent p of lambda_i ~ i^-p
VERSIONS = ("torch", "pytorch-lightning", "torchmetrics", "hydra-core", "wandb", "numpy")


def finish_run(
    folder: Path,
    trainer: pl.Trainer,
    module: WideNetworkModule,
    history: RunHistory,
    spectrum: SpectrumCallback,
    *,
    baseline: RunHistory | None = None,
    figures: bool = True,
) -> dict[str, Any]:
    """Write history.csv, summary.json and figures/, show them to the loggers, print the table; return the summary.

    `baseline` is the history of the same run without the preconditioner, where there was one.
    """
    predict_all(module, trainer.datamodule)  # type: ignore[attr-defined]  # a finished run that is resumed has none
    summary = summarize(trainer, module, history, spectrum)
    if baseline is not None:
        summary |= compare(history, baseline)
    if trainer.is_global_zero:
        history.write(folder / "history.csv")
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        drawn = draw_figures(folder / "figures", module, history, spectrum, baseline) if figures else []
        print_table(folder, summary)
        show(trainer.loggers, summary, drawn, step=trainer.global_step)
    return summary


def compare(history: RunHistory, baseline: RunHistory) -> dict[str, Any]:
    """What was gained over the run without the preconditioner, at the same number of steps, and its time."""
    psnr, target = history.column("psnr"), float(baseline.column("psnr")[-1])
    reached = history.column("seconds")[psnr >= target]
    return {
        "baseline_psnr": target,
        "baseline_seconds": baseline.clock.seconds,
        "baseline_cpu_seconds": baseline.clock.cpu_seconds,
        "gain_db": float(psnr[-1]) - target,
        "seconds_to_baseline_psnr": float(reached[0]) if len(reached) else None,
    }


def summarize(
    trainer: pl.Trainer, module: WideNetworkModule, history: RunHistory, spectrum: SpectrumCallback
) -> dict[str, Any]:
    """One flat dictionary: final and best quality, steps, times in seconds, memory in MiB, versions, commit."""
    last = history.rows[-1] if history.rows else {}
    quality: dict[str, Any] = {name: last[name] for name in ("psnr", "ssim", "mse", "psnr_heldout") if name in last}
    psnr = history.column("psnr")
    return {
        **quality,
        "loss": history.loss,
        "best_loss": history.best_loss,
        "best_psnr": float(psnr.max()) if len(psnr) else None,
        "best_ssim": float(history.column("ssim").max()) if len(psnr) else None,
        "best_mse": float(history.column("mse").min()) if len(psnr) else None,
        "steps": trainer.global_step,
        "seconds": history.clock.seconds,
        "cpu_seconds": history.clock.cpu_seconds,
        "refresh_seconds": spectrum.refresh_seconds,
        "refreshes": spectrum.refreshes,
        "failed_refreshes": spectrum.failed_refreshes,
        "probes": spectrum.probes,
        "refresh_share": spectrum.share,
        **_safety_summary(module),
        "skipped_steps": 0 if module.preconditioner is None else module.preconditioner.skipped_steps,
        **_spectrum_summary(module, spectrum),
        **environment(),
    }


def environment() -> dict[str, Any]:
    """What a run's numbers depend on beside its settings: memory in MiB, versions, commit."""
    return {
        "peak_memory_mib": _peak_memory_mib(),
        "spectrain": spectrain.__version__,
        "python": platform.python_version(),
        **{f"version_{name}": version(name) for name in VERSIONS},
        "git_commit": _git_commit(),
    }


def draw_figures(
    folder: Path,
    module: WideNetworkModule,
    history: RunHistory,
    spectrum: SpectrumCallback,
    baseline: RunHistory | None = None,
) -> list[tuple[str, Path, Figure]]:
    """Draw and save every figure for which there are numbers: [(name, path of the PNG, figure)]."""
    arrays: dict[str, tuple[Any, dict[str, Any]]] = {}
    if module.metrics is not None and history.rows:
        target, image = module.metrics.target, module.metrics.reconstruction()
        arrays["reconstruction"] = (
            plots.reconstruction_figure,
            {"target": target.cpu().numpy(), "reconstruction": image.cpu().numpy()},
        )
    if spectrum.spectrum is not None:
        modes = spectrum.spectrum
        S = module.preconditioner
        ratio = modes.ratio(S.effective_map) if S is not None else torch.ones_like(modes.eigenvalues)
        arrays["spectrum"] = (
            plots.spectrum_figure,
            {
                "eigenvalues": modes.eigenvalues.cpu().numpy(),
                "ratio": ratio.cpu().numpy(),
                "resolved": modes.resolved,
                "noise_floor": modes.noise_floor,
            },
        )
    if len(history.rows) > 1:
        steps = history.column("step").long().numpy()
        arrays["psnr"] = (plots.psnr_figure, _psnr_arrays(history, baseline))
        bands = [name for name in history.rows[-1] if name.startswith("band_")]
        if bands:
            energy = np.stack([history.column(name).numpy() for name in bands], axis=1)
            arrays["band_energy"] = (
                plots.band_energy_figure,
                {"step": steps, "energy": energy, "last_mode": np.array(history.edges[1:])},
            )
    folder.mkdir(exist_ok=True)
    drawn = []
    for name, (draw, values) in arrays.items():
        figure = draw(**values)
        plots.save_figure(figure, folder / name, values)
        drawn.append((name, folder / f"{name}.png", figure))
    return drawn


def _psnr_arrays(history: RunHistory, baseline: RunHistory | None) -> dict[str, Any]:
    runs = [history, *([baseline] if baseline is not None else [])]
    arrays = {name: np.concatenate([run.column(name).numpy() for run in runs]) for name in ("step", "seconds", "psnr")}
    if baseline is not None:
        names = ("modified spectrum", "without")
        arrays["run"] = np.repeat(names, [len(run.rows) for run in runs])
    return arrays


def print_table(folder: Path, summary: dict[str, Any]) -> None:
    """The run in a few lines, for a person."""
    table = Table(show_header=False, box=None, pad_edge=False)
    seconds, refresh = summary["seconds"], summary["refresh_seconds"]
    if "psnr" in summary:
        heldout = f", {summary['psnr_heldout']:.2f} dB held out" if "psnr_heldout" in summary else ""
        table.add_row("PSNR", f"{summary['psnr']:.2f} dB (best {summary['best_psnr']:.2f} dB){heldout}")
        table.add_row("SSIM", f"{summary['ssim']:.4f}")
    percent = 100 * summary["refresh_share"]
    count = summary["refreshes"]
    share = f"{refresh:.1f} s in {count} refresh{'' if count == 1 else 'es'} of the spectrum, {percent:.0f} %"
    if summary["probes"]:
        share += f"; {summary['probes']} look{'' if summary['probes'] == 1 else 's'} at its drift"
    if summary["failed_refreshes"]:
        share += f"; {summary['failed_refreshes']} more failed"
    refreshed = summary["refreshes"] or summary["probes"] or summary["failed_refreshes"]
    table.add_row("time", f"{seconds:.1f} s for {summary['steps']} steps" + (f" ({share})" if refreshed else ""))
    if "preconditioner" in summary:
        table.add_row("S", f"{summary['preconditioner']}: {summary['preconditioner_reason']}")
    if "rejected_steps" in summary:
        taken = f"{summary['shrunk_steps']} steps shrank S, {summary['rejected_steps']} were taken back"
        table.add_row("guard", f"{taken}; strength {summary['strength']:.3g} at the end")
    if summary.get("skipped_steps"):
        table.add_row("left out", f"S in {summary['skipped_steps']} steps, whose kernel could not be used")
    if summary.get("condition_after"):
        before, after = summary["condition_before"], summary["condition_after"]
        table.add_row(
            "spectrum", f"condition number {before:,.0f} -> {after:,.0f} on {summary['resolved_modes']} modes"
        )
    if "gain_db" in summary:
        base = f"{summary['baseline_psnr']:.2f} dB in {summary['baseline_seconds']:.1f} s without"
        reached = summary["seconds_to_baseline_psnr"]
        sooner = f"; that PSNR was reached after {reached:.1f} s" if reached is not None else ""
        table.add_row("gain", f"{summary['gain_db']:+.2f} dB in the same steps ({base}{sooner})")
    table.add_row("summary", str(folder / "summary.json"))
    if (folder / "figures").exists():
        table.add_row("figures", str(folder / "figures"))
    Console(file=sys.stdout, highlight=False, width=200).print(table)


def show(
    loggers: Iterable[Logger], summary: dict[str, Any], drawn: list[tuple[str, Path, Figure]], *, step: int
) -> None:
    """Send figures and summary to the run's trackers."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.log({f"figures/{name}": wandb.Image(str(path)) for name, path, _ in drawn})
            logger.experiment.summary.update({f"final/{key}": value for key, value in summary.items()})
            logger.experiment.finish()  # now: a later job of a sweep must not log into this run
            if logger.experiment.offline:
                parts = sorted(Path(logger.experiment.dir).parents[1].glob("offline-run-*"))  # one for each resume
                print(f"to see the run in Weights & Biases: wandb sync {' '.join(map(str, parts))}")
        elif isinstance(logger, TensorBoardLogger):
            for name, _, figure in drawn:
                logger.experiment.add_figure(f"figures/{name}", figure, step)


def _safety_summary(module: WideNetworkModule) -> dict[str, Any]:
    """What the guard did and what `preconditioner=auto` chose, where they are on."""
    guard, S = module.guard, module.preconditioner
    summary: dict[str, Any] = {}
    if guard is not None:
        summary |= {"strength": guard.preconditioner.strength, "speed": guard.speed}
        summary |= {"shrunk_steps": guard.shrunk_steps, "rejected_steps": guard.rejected_steps}
    if isinstance(S, AutoPreconditioner):
        summary |= {"preconditioner": S.name, "preconditioner_reason": S.reason, "trials": len(S.trials)}
    return summary


def _spectrum_summary(module: WideNetworkModule, callback: SpectrumCallback) -> dict[str, Any]:
    """Of the last spectrum; lambda_1 / lambda_64 is what predicts whether a modified spectrum pays."""
    spectrum, S = callback.spectrum, module.preconditioner
    if spectrum is None:
        return {}
    eigenvalues = spectrum.eigenvalues
    return {
        "resolved_modes": spectrum.resolved,
        "condition_before": condition_number(spectrum),
        "condition_after": condition_number(spectrum, S.effective_map) if S is not None else None,
        "eigenvalue_ratio_1_64": float(eigenvalues[0] / eigenvalues[63]) if len(eigenvalues) >= 64 else None,
        "eigenvalue_decay": decay_law(spectrum).exponent if spectrum.resolved >= ENOUGH_MODES else None,
    }


def _peak_memory_mib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere


def _git_commit() -> str | None:
    """Of the source tree that runs, if it is one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(spectrain.__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
