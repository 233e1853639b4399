"""One run in several processes: where it writes, and what cannot be done."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.environments import SLURMEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.strategies import DDPStrategy

from spectrain.cli.rank import is_first
from spectrain.errors import InputError

_FOLDER = "SPECTRAIN_RUN_FOLDER"  # from the first process to those that Lightning starts


def agreed_folder(choose: Callable[[], Path], cfg: DictConfig) -> Path:
    """The folder that rank 0 chooses: every process would name it by its own clock.

    Raises:
        InputError: rank 0 has no way to tell the others.
    """
    store = _torchrun_store()
    if is_first():
        folder = choose()
        os.environ[_FOLDER] = str(folder)
        if store is not None:
            store.set(_FOLDER, str(folder))
        return folder
    if store is not None:
        return Path(store.get(_FOLDER).decode())
    if _FOLDER in os.environ:
        return Path(os.environ[_FOLDER])
    if cfg.paths.run_dir is not None:
        return Path(cfg.paths.run_dir)
    if cfg.ckpt_path is not None:
        return Path(cfg.ckpt_path).parent.parent
    raise InputError(
        "Several processes were started from outside, and each would name the run folder by its own clock; give "
        "paths.run_dir=runs/NAME."
    )


def world_size(cfg: DictConfig) -> int:
    """Processes, as configuration and launcher say, before there is a trainer; devices=auto counts as one."""
    devices, nodes = cfg.trainer.get("devices", 1), int(cfg.trainer.get("num_nodes", 1))
    per_node = len(devices) if OmegaConf.is_list(devices) else devices if isinstance(devices, int) else 1
    return max(per_node * nodes, int(os.environ.get("WORLD_SIZE", 1)))


def _torchrun_store() -> Any:
    """The key-value store of torchrun, which all its processes reach before torch.distributed is there."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    return dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)  # type: ignore[attr-defined]


def check_processes(trainer: pl.Trainer, *, guard: bool = False, least_squares: bool = False) -> None:
    """Refuse what several processes cannot do, before anything is written.

    Raises:
        InputError: a sweep whose jobs would start it again, a strategy that is not DDP in processes of its own, the
            guard, or Gauss-Newton on data.
    """
    if trainer.world_size == 1:
        return
    if guard:
        raise InputError(
            f"guard=true judges steps in one process, and there are {trainer.world_size}; give guard=false."
        )
    if least_squares:
        raise InputError(
            f"optimizer=gauss_newton fits data in one process, and there are {trainer.world_size}; give "
            "trainer.devices=1, or another optimizer with preconditioner=sample."
        )
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy) or strategy._start_method != "popen":
        raise InputError(
            "This trainer.strategy is not supported with several devices; they train with trainer=ddp "
            "(trainer.strategy=ddp), in a process each."
        )
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN and not _is_job_of_submitit():
        raise InputError(
            "-m does not go with several devices: each process would start the whole sweep again. Give the jobs "
            "trainer.devices=1, or start them one after another without -m: for s in 0 1 2; do ... seed=$s; done. "
            "On SLURM, hydra/launcher=slurm starts the processes of each job."
        )


def _is_job_of_submitit() -> bool:
    """Its processes are started for one job each; those of a sweep that runs here would each run all of it."""
    return "submitit" in HydraConfig.get().launcher._target_ and SLURMEnvironment.detect()
