"""What a finished run leaves in its folder: figures with their raw numbers, summary.json, and a short table."""

import functools
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import spectrain
from spectrain import plots
from spectrain.data.field import Columns, FieldDataModule, Figures
from spectrain.lightning.history import RunHistory, predict_all
from spectrain.lightning.interrupt import was_interrupted
from spectrain.lightning.module import WideNetworkModule
from spectrain.lightning.outputs import Outputs
from spectrain.lightning.spectrum_callback import SpectrumCallback
from spectrain.lightning.tracking import show, write_modes
from spectrain.metrics import FieldMetrics, Quality
from spectrain.preconditioners import AutoPreconditioner
from spectrain.spectrum.decay_law import decay_law
from spectrain.spectrum.measures import condition_number, effective_rank, participation_ratio
from spectrain.spectrum.mode_table import mode_table

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
    """Write history.csv, modes.csv, summary.json and figures/, show them to the loggers; return the summary.

    `baseline` is the history of the same run without the preconditioner, where there was one.
    """
    data: FieldDataModule = trainer.datamodule  # type: ignore[attr-defined]
    metrics = module.metrics
    assert metrics is not None
    predict_all(module, data)  # a finished run that is resumed has none
    summary = summarize(trainer, module, history, spectrum)
    if baseline is not None:
        summary |= compare(history, baseline, metrics.quality)
    runs = named_runs(history, baseline)
    summary |= data.headline(runs)
    if trainer.is_global_zero:
        outputs = Outputs()
        outputs.write("history.csv", lambda: history.write(folder / "history.csv"))
        outputs.write_summary(folder, summary)
        arrays = data.figures(metrics, runs) | spectral_figures(module, history, spectrum) if figures else {}
        drawn = save_figures(outputs, folder / "figures", arrays)
        modes = None
        if spectrum.initial is not None and history.energy is not None:
            S = module.preconditioner
            modes = mode_table(spectrum.initial, None if S is None else S.effective_map, history.energy)
            outputs.write("modes.csv", lambda: write_modes(folder, modes))
        print_table(folder, summary, metrics)
        show(trainer.loggers, summary, drawn, modes, step=trainer.global_step)
        outputs.finish(trainer.loggers)
    return summary


def named_runs(history: RunHistory, baseline: RunHistory | None) -> dict[str, Columns]:
    """The run's columns and those of the same without a preconditioner, under the names that figures give them."""
    runs: dict[str, Columns] = {"modified spectrum": history.columns()}
    if baseline is not None:
        runs["without"] = baseline.columns()
    return runs


def compare(history: RunHistory, baseline: RunHistory, quality: Quality) -> dict[str, Any]:
    """What was gained over the run without the preconditioner, at the same number of steps, and its time."""
    values, target = history.column(quality.name), float(baseline.column(quality.name)[-1])
    reached = history.column("seconds")[values >= target if quality.higher else values <= target]
    return {
        f"baseline_{quality.name}": target,
        "baseline_seconds": baseline.clock.seconds,
        "baseline_cpu_seconds": baseline.clock.cpu_seconds,
        quality.gain_name: quality.gain(float(values[-1]), target),
        f"seconds_to_baseline_{quality.name}": float(reached[0]) if len(reached) else None,
    }


def summarize(
    trainer: pl.Trainer, module: WideNetworkModule, history: RunHistory, spectrum: SpectrumCallback
) -> dict[str, Any]:
    """One flat dictionary: final and best quality, steps, times in seconds, memory in MiB, versions, commit."""
    return {
        **_quality_summary(module, history),
        "loss": history.loss,
        "best_loss": history.best_loss,
        "steps": trainer.global_step,
        "interrupted": was_interrupted(trainer),
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


def _quality_summary(module: WideNetworkModule, history: RunHistory) -> dict[str, Any]:
    """Every metric of the data at the end, and the best value of those that have a direction."""
    if module.metrics is None or not history.rows:
        return {}
    other = ("step", "seconds", "cpu_seconds")
    last = {k: v for k, v in history.rows[-1].items() if k not in other and not k.startswith("band_")}
    best = {}
    for name, higher in module.metrics.directions.items():
        column = history.column(name)
        best[f"best_{name}"] = float(column.max() if higher else column.min())
    return {**last, **best}


def spectral_figures(module: WideNetworkModule, history: RunHistory, spectrum: SpectrumCallback) -> Figures:
    """The spectrum before and after the map, and the residual's energy per band of modes, where they are known."""
    arrays: Figures = {}
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
    bands = [name for name in history.rows[-1] if name.startswith("band_")] if len(history.rows) > 1 else []
    if bands:
        energy = np.stack([history.column(name).numpy() for name in bands], axis=1)
        steps = history.column("step").long().numpy()
        arrays["band_energy"] = (
            plots.band_energy_figure,
            {"step": steps, "energy": energy, "last_mode": np.array(history.edges[1:])},
        )
    return arrays


def save_figures(outputs: Outputs, folder: Path, made: Figures) -> list[tuple[str, Path, Figure]]:
    """Draw and save those of `made`; those that the disk took: [(name, path of the PNG, figure)]."""
    drawn = []
    for name, (draw, values) in made.items():
        figure = draw(**values)
        save = functools.partial(plots.save_figure, figure, folder / name, values)
        if outputs.write(f"the figure {name}", save) is not None:
            drawn.append((name, folder / f"{name}.png", figure))
    return drawn


def print_table(folder: Path, summary: dict[str, Any], metrics: FieldMetrics) -> None:
    """The run in a few lines, for a person."""
    table = Table(show_header=False, box=None, pad_edge=False)
    seconds, refresh = summary["seconds"], summary["refresh_seconds"]
    quality = metrics.quality
    for word, text in metrics.lines(summary) if quality.name in summary else ():
        table.add_row(word, text)
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
    if quality.gain_name in summary:
        base = f"{quality.text(summary[f'baseline_{quality.name}'])} in {summary['baseline_seconds']:.1f} s without"
        reached = summary[f"seconds_to_baseline_{quality.name}"]
        sooner = f"; that {quality.label} was reached after {reached:.1f} s" if reached is not None else ""
        table.add_row("gain", f"{quality.text(summary[quality.gain_name], '+')} in the same steps ({base}{sooner})")
    table.add_row("summary", str(folder / "summary.json"))
    if (folder / "figures").exists():
        table.add_row("figures", str(folder / "figures"))
    Console(file=sys.stdout, highlight=False, width=200).print(table)


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
        "effective_rank": effective_rank(spectrum) if spectrum.resolved else None,
        "participation_ratio": participation_ratio(spectrum) if spectrum.resolved else None,
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
