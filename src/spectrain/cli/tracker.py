"""The tracker of ``logger=``, with the names by which a dashboard sorts many runs."""

import datetime
import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger

from spectrain.cli import build
from spectrain.lightning import Tracker, last_logged_step, wandb_logger
from spectrain.lightning.wandb_run import UPLOAD_SECONDS

_SWEEP = "SPECTRAIN_SWEEP"  # from the process that starts a sweep to its jobs, which may run on other machines
_TAGGED = ("data", "model", "optimizer", "preconditioner", "spectral_map")


def name_sweep() -> None:
    """Give the sweep that this process starts its name; that of an earlier one in the same process is forgotten."""
    os.environ[_SWEEP] = f"sweep-{datetime.datetime.now():%Y%m%d_%H%M%S}"


def build_tracker(cfg: DictConfig, folder: Path, processes: int = 1) -> list[Logger]:
    """The logger of ``logger=``, unable to stop or slow the run; none for ``logger=none``.

    For W&B, where they are not given: tags are the classes of data, model, optimizer, preconditioner and map; the jobs
    of a sweep are a group with the job type "sweep"; a run of several processes, for all of which rank 0 logs, has the
    job type "ranks-N".
    """
    if not build.is_on(cfg, "logger"):
        return []
    is_wandb = cfg.logger["_target_"].rpartition(".")[2] == wandb_logger.__name__
    if is_wandb:
        names = {"tags": tags(cfg), **_group(processes)}
        cfg.logger = {**cfg.logger, **{key: value for key, value in names.items() if cfg.logger.get(key) is None}}
    patience = {"patience": float(UPLOAD_SECONDS)} if cfg.logger.get("checkpoints") else {}
    inner = build.build(cfg, "logger")
    first_step = getattr(inner, "last_step", last_logged_step(folder))  # 0 in a new folder
    return [Tracker(inner, first_step, **patience)]


def tags(cfg: DictConfig) -> list[str]:
    """The last part of each group's ``_target_``, as a checkpoint carries it."""
    targets = [cfg[group]["_target_"] for group in _TAGGED if build.is_on(cfg, group)]
    return [str(target).rpartition(".")[2] for target in targets]


def _group(processes: int) -> dict[str, str]:
    sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    names = {"group": os.environ[_SWEEP], "job_type": "sweep"} if sweep and _SWEEP in os.environ else {}
    return names | ({"job_type": f"ranks-{processes}"} if processes > 1 else {})
