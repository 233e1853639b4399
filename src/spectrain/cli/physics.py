"""A run on a differential equation: what differs from a run on a photograph, between configuration and summary."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from spectrain.cli import build
from spectrain.cli.choose_map import is_auto
from spectrain.cli.fitting import fit_guarded
from spectrain.cli.processes import check_processes
from spectrain.cli.rank import is_first
from spectrain.cli.run_folder import make_run_folder
from spectrain.cli.tracker import build_tracker
from spectrain.errors import InputError, SpectrainWarning
from spectrain.lightning import (
    Alerts,
    GracefulInterrupt,
    MetricsCSV,
    PDEDataModule,
    PhysicsHistory,
    PhysicsModule,
    RandomState,
    SpectrumCallback,
    TrainingProgress,
)
from spectrain.lightning.physics_report import finish_physics
from spectrain.preconditioners import GridPreconditioner, SamplePreconditioner


@dataclass
class PhysicsRun:
    """What was built and trained."""

    trainer: pl.Trainer
    module: PhysicsModule
    data: PDEDataModule
    history: PhysicsHistory
    interrupted: int


def is_physics(cfg: DictConfig) -> bool:
    """Whether ``data=`` names an equation."""
    target = get_object(cfg.data["_target_"])
    return isinstance(target, type) and issubclass(target, PDEDataModule)


def check_physics(cfg: DictConfig) -> None:
    """Settings that do not go together.

    Raises:
        InputError: naming the keys.
    """
    side = get_object(cfg.preconditioner["_target_"]) if build.is_on(cfg, "preconditioner") else None
    of_pictures = isinstance(side, type) and issubclass(side, GridPreconditioner)
    if side is not None and (of_pictures or not (isinstance(side, type) and issubclass(side, SamplePreconditioner))):
        raise InputError(
            f"{side.__name__} does not act on the residuals of an equation; take preconditioner=sample, or none with "
            "optimizer=gauss_newton."
        )
    if side is not None and is_auto(cfg):
        raise InputError("spectral_map=auto does not know equations; give a map, such as spectral_map=power.")
    if build.is_rate_automatic(cfg):
        raise InputError("optimizer.lr=auto does not know equations; give a number.")
    if cfg.get("guard") and side is not None:
        warnings.warn("guard=true has no effect on equations.", SpectrainWarning, stacklevel=2)
    if cfg.get("readout") == "solved":
        raise InputError("readout=solved fits values, and equations have none; leave readout=trained.")
    period, every = cfg.data.get("resample_every_n_steps", 1), cfg.spectrum.every_n_steps
    if build.is_on(cfg, "preconditioner") and period is not None and period % every:
        raise InputError(
            f"data.resample_every_n_steps={period} draws other points than those of the spectrum, which is taken every "
            f"spectrum.every_n_steps={every} steps; give a multiple of {every}, or null for fixed points."
        )


def fit_physics(cfg: DictConfig, folder: Path) -> PhysicsRun:
    """Build everything, make the run folder, train."""
    check_physics(cfg)
    config_yaml = OmegaConf.to_yaml(cfg)
    cfg.paths.run_dir = str(folder)
    pl.seed_everything(cfg.seed, verbose=False)
    data: PDEDataModule = build.build_data(cfg)
    network = build.build_network(cfg, data)
    if str(cfg.trainer.precision).startswith("64"):
        network.double()  # before the checks, which warn of single precision
    optimizer, schedule = build.build(cfg, "optimizer"), build.build(cfg, "schedule")
    build.try_optimizer(cfg, network, optimizer, schedule)
    module = PhysicsModule(
        network,
        data,
        optimizer,
        schedule=schedule,
        scale_free=bool(cfg.optimizer.get("scale_free", False)),
        preconditioner=build.build(cfg, "preconditioner"),
        rank=cfg.spectrum.rank,
        every_n_steps=cfg.spectrum.every_n_steps,
        config_yaml=config_yaml,
        hparams=OmegaConf.to_container(cfg, resolve=True),
    )
    history, interrupt = PhysicsHistory(), GracefulInterrupt()
    callbacks = [c for c in build.build_callbacks(cfg) if not isinstance(c, SpectrumCallback)]
    trainer = build.build_trainer(cfg, [history, RandomState(), interrupt, TrainingProgress(), Alerts(), *callbacks])
    check_processes(trainer)
    trainer.loggers = [MetricsCSV(folder)]
    if is_first():
        make_run_folder(folder, cfg)  # from here on something is written
        trainer.loggers += build_tracker(cfg, folder, trainer.world_size)
        print(f"run folder: {folder}", flush=True)
    fit_guarded(trainer, module, data, cfg.ckpt_path, interrupt)
    return PhysicsRun(trainer, module, data, history, interrupt.interrupted)


def train_physics(cfg: DictConfig, folder: Path) -> tuple[dict[str, Any], PhysicsRun]:
    """Train, and leave summary, figures and field."""
    run = fit_physics(cfg, folder)
    return finish_physics(folder, run.trainer, run.module, run.data, run.history, figures=cfg.figures), run
