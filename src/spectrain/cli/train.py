"""``spectrain-train``: one run from a configuration to a run folder."""

import copy
import logging
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from spectrain.cli import build, sweep
from spectrain.cli.allowlist import check_targets
from spectrain.cli.choose_map import choose_map
from spectrain.cli.config_dir import config_dir
from spectrain.cli.errors import INTERRUPTED, explain, run_guarded
from spectrain.cli.fitting import end_by_signal, fit_guarded
from spectrain.cli.launch import launch
from spectrain.cli.physics import is_physics, train_physics
from spectrain.cli.processes import agreed_folder, check_processes
from spectrain.cli.rank import is_first
from spectrain.cli.run_folder import (
    checkpoint_in_run_folder,
    choose_run_folder,
    load_checkpoint,
    make_run_folder,
    resumed_config,
)
from spectrain.cli.study import run_study
from spectrain.cli.tracker import build_tracker, name_sweep
from spectrain.cli.validation import validate
from spectrain.errors import InputError
from spectrain.lightning import (
    Alerts,
    AutoCallback,
    AutomaticRate,
    GracefulInterrupt,
    LeastSquaresModule,
    MetricsCSV,
    RandomState,
    RunHistory,
    SpectrumCallback,
    TrainingProgress,
    WideNetworkModule,
)
from spectrain.lightning.report import finish_run


@dataclass
class Run:
    """What `fit` built and trained."""

    folder: Path
    trainer: pl.Trainer
    module: WideNetworkModule
    history: RunHistory
    spectrum: SpectrumCallback
    interrupted: int  # the signal that stopped it, or 0


def train(cfg: DictConfig, overrides: list[str] | None = None, task: str = "image") -> dict[str, Any]:
    """Run one configuration, and the same without the preconditioner if `baseline` asks for it; return the summary.

    `overrides` are the command line's, needed to resume; `task` names the run folder.

    Raises:
        InputError: anything in the configuration or the files it names cannot be used. Nothing is then written.
        KeyboardInterrupt: Ctrl-C, after the state has been saved.
        SystemExit: so ends SIGTERM or SIGUSR1.
    """
    if build.is_on(cfg, "study"):
        return run_study(cfg, overrides or [], task, train)
    if cfg.resume is True:
        cfg.ckpt_path = checkpoint_in_run_folder(cfg)
    if cfg.ckpt_path is not None:
        cfg = resumed_config(cfg, load_checkpoint(cfg.ckpt_path), overrides or [])
    validate(cfg)
    build.check_groups(cfg)
    check_targets(cfg, cfg.allow_targets)
    folder = agreed_folder(lambda: choose_run_folder(cfg, task), cfg)
    if is_physics(cfg):
        return _train_physics(cfg, folder)
    run = fit(cfg, folder)
    baseline, stopped = None, run.interrupted
    if cfg.baseline and build.is_on(cfg, "preconditioner") and not stopped:
        baseline, stopped = fit_baseline(cfg, folder, run.trainer)
    summary = finish_run(
        folder, run.trainer, run.module, run.history, run.spectrum, baseline=baseline, figures=cfg.figures
    )
    if run.interrupted and is_first():
        _say_how_to_resume(cfg, folder, run.trainer)
    if stopped and is_first():  # Lightning kills the first process when another one ends with an error
        end_by_signal(stopped)
    return summary


def _train_physics(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    summary, run = train_physics(cfg, folder)
    if run.interrupted and is_first():
        _say_how_to_resume(cfg, folder, run.trainer)
        end_by_signal(run.interrupted)
    return summary


def _say_how_to_resume(cfg: DictConfig, folder: Path, trainer: pl.Trainer) -> None:
    command = resume_command(folder, list(cfg.allow_targets))
    print(f"Stopped at step {trainer.global_step} of {trainer.max_steps}. To resume:\n  {command}")


def fit(cfg: DictConfig, folder: Path) -> Run:
    """Build everything, make the run folder, train."""
    pl.seed_everything(cfg.seed, verbose=False)
    data = build.build_field(cfg)
    network = build.build_network(cfg, data)
    build.choose_monitor(cfg, data.metrics().quality)
    choose_map(cfg, data, network)
    config_yaml = OmegaConf.to_yaml(cfg)
    cfg.paths.run_dir = str(folder)
    module = build.build_module(cfg, network, data, config_yaml)
    callbacks = build.build_callbacks(cfg)
    spectrum = next((c for c in callbacks if isinstance(c, SpectrumCallback)), None)
    if spectrum is None:
        raise InputError("callbacks.spectrum is missing: a run needs spectrain.lightning.SpectrumCallback.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is said when the callback chooses them
        spectrum.landmarks(data, data.train_x)  # refuses what it must before anything is written
    history, interrupt = RunHistory(spectrum), GracefulInterrupt()
    solved = build.build_readout(cfg, network, data)  # before the history, whose clock counts it
    own = [*solved, history, spectrum, AutoCallback(spectrum), RandomState(), interrupt, TrainingProgress(), Alerts()]
    if build.is_rate_automatic(cfg):
        own.insert(len(solved) + 3, AutomaticRate(spectrum))

    trainer = build.build_trainer(cfg, [*own, *(c for c in callbacks if c is not spectrum)])
    guarded = cfg.guard and build.is_on(cfg, "preconditioner")
    check_processes(trainer, guard=guarded, least_squares=isinstance(module, LeastSquaresModule))
    trainer.loggers = [MetricsCSV(folder)]
    if is_first():
        make_run_folder(folder, cfg)  # from here on something is written
        trainer.loggers += build_tracker(cfg, folder, trainer.world_size)
        print(f"run folder: {folder}", flush=True)
    fit_guarded(trainer, module, data, cfg.ckpt_path, interrupt)
    return Run(folder, trainer, module, history, spectrum, interrupt.interrupted)


def fit_baseline(cfg: DictConfig, folder: Path, trainer: pl.Trainer) -> tuple[RunHistory | None, int]:
    """The same run without the preconditioner, in RUN/baseline, for the gain; and the signal that stopped it, or 0.

    Without a history where it did not come to its end: the main run is done, and nothing here may cost its summary.
    """
    without = copy.deepcopy(cfg)
    for key in ("preconditioner", "logger"):
        OmegaConf.update(without, key, {"_target_": None}, merge=False, force_add=True)
    without.ckpt_path = None
    place = folder / "baseline"
    last = place / "checkpoints" / "last.ckpt"
    try:
        if trainer.strategy.broadcast(last.exists()):  # of the earlier part of a resumed run
            if not _stopped_on_the_way(last, cfg.trainer.max_steps):
                return finished_history(place, cfg.trainer.max_steps), 0
            without.ckpt_path = str(last)
        if is_first():
            print("now the same without the preconditioner, for comparison (baseline=false leaves it out)")
        run = fit(without, place)
    except Exception as error:
        print(f"warning: the run without the preconditioner did not finish: {explain(error) or error}", file=sys.stderr)
        return None, 0
    except KeyboardInterrupt:
        return None, signal.SIGINT
    return (None if run.interrupted else run.history), run.interrupted


def _stopped_on_the_way(last: Path, steps: int) -> bool:
    """Whether the run of this checkpoint meant to make `steps` steps and made fewer."""
    checkpoint = load_checkpoint(str(last))
    meant: int = OmegaConf.create(checkpoint["config"]).trainer.max_steps
    return bool(checkpoint["global_step"] < meant == steps)


def finished_history(folder: Path, steps: int) -> RunHistory | None:
    """The history in a run folder's last checkpoint, if that run made `steps` steps."""
    checkpoint = load_checkpoint(str(folder / "checkpoints" / "last.ckpt"))
    if checkpoint["global_step"] != steps:
        made = checkpoint["global_step"]
        print(f"warning: {folder} made {made} steps, not {steps}; it is left out of the comparison.", file=sys.stderr)
        return None
    history = RunHistory(SpectrumCallback())
    history.load_state_dict(checkpoint["callbacks"]["RunHistory"])
    return history


def resume_command(folder: Path, allow_targets: Sequence[str] = ()) -> str:
    """What a person types to go on with the run in `folder`, in the way this run was started.

    A checkpoint cannot allow targets to itself: the command line has to say them again.
    """
    path = f"{folder}/checkpoints/last.ckpt"
    plain = re.fullmatch(r"[\w./:@+-]+", path, re.ASCII)
    override = f"ckpt_path={path}" if plain else "ckpt_path='{}'".format(path.replace("'", "\\'"))  # Hydra's quotes
    allowed = [f"allow_targets=[{','.join(allow_targets)}]"] if allow_targets else []
    if "SPECTRAIN_ARGS" in os.environ:  # started by make
        if plain:
            return f'make train ARGS="{" ".join([override, *allowed])}"'
        return f"make train ARGS={shlex.quote(shlex.join([override, *allowed]))}"
    program = Path(sys.argv[0])
    start = ["python", str(program)] if program.suffix == ".py" else [program.name]
    return shlex.join([*start, override, *allowed])


def quiet_libraries() -> None:
    """Silence what Lightning says about choices that are made on purpose here."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*You're resuming from a checkpoint that ended before the epoch ended.*",
        ".*LeafSpec.*",
        ".*`srun` command is available.*",  # a single process beside a SLURM is nothing odd
        ".*recommended to use .*sync_dist=True.*",  # what is logged is the same on all ranks
    ):
        warnings.filterwarnings("ignore", message=message)
    warnings.showwarning = _plain_warning


def _plain_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")  # type: ignore[untyped-decorator]
def _job(cfg: DictConfig) -> None:
    quiet_libraries()
    hydra_config = HydraConfig.get()
    task = hydra_config.runtime.choices.get("experiment") or hydra_config.runtime.choices.get("data") or "run"
    code = run_guarded(lambda: train(cfg, list(hydra_config.overrides.task), task), debug=cfg.show_traceback is True)
    if code and hydra_config.mode == RunMode.MULTIRUN and code != INTERRUPTED:
        words = shlex.join(sweep.alone(hydra_config.overrides.task, cfg))
        print(f"the job {words} failed; the sweep goes on", file=sys.stderr)
        if is_first():
            sweep.remember(code, words)
    elif code:
        sys.exit(code)


def main() -> None:
    """Check the command line, then let Hydra run it."""
    if code := run_guarded(lambda: sweep.begin(sys.argv[1:])):
        sys.exit(code)
    name_sweep()
    launch(_job, "train")
    if failed := sweep.failed():
        print(f"{len(failed)} of the sweep's jobs failed; each can be repeated alone:", file=sys.stderr)
        for _, words in failed:
            print(f"  {words}", file=sys.stderr)
        sys.exit(max(code for code, _ in failed))


if __name__ == "__main__":
    main()
