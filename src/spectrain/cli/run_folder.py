"""One folder holds one run: where it lies, and what a checkpoint in it may be resumed with."""

import datetime
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import spectrain
from spectrain.cli.choose_map import is_auto
from spectrain.errors import InputError, SpectrainWarning

# What a resumed run must share with the run that wrote the checkpoint; the rest (max_steps, logger, paths) may change.
FIXED_ON_RESUME = (
    "data",
    "model",
    "optimizer",
    "preconditioner",
    "spectral_map",
    "spectrum",
    "seed",
    "size",
    "trainer.accumulate_grad_batches",
)

NEEDED_TO_RESUME = ("global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers")


def load_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint of spectrain, tensors and primitives only.

    Raises:
        InputError: it is missing, a directory, truncated, wants to run code, or was not written by spectrain.
    """
    if not isinstance(path, str) or not path:
        raise InputError(f"ckpt_path={path!r} is not a path; give a file such as runs/NAME/checkpoints/last.ckpt.")
    file = Path(path)
    if not file.exists() and file.parent.name == "checkpoints" and (file.parents[1] / "config.yaml").exists():
        raise InputError(
            f"ckpt_path={path} does not exist: the run in {file.parents[1]} ended before its first checkpoint, which "
            "the first validation writes (trainer.val_check_interval). There is nothing to resume; start it again."
        )
    if not file.exists():
        raise InputError(f"ckpt_path={path} does not exist; give a file such as runs/NAME/checkpoints/last.ckpt.")
    if file.is_dir():
        raise InputError(f"ckpt_path={path} is a folder; give the file in it, such as {file}/checkpoints/last.ckpt.")
    if not file.is_file():  # a pipe would be waited for without end
        raise InputError(
            f"ckpt_path={path} is not a regular file; give a file such as runs/NAME/checkpoints/last.ckpt."
        )
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"ckpt_path={path} cannot be read ({error.strerror or error}).") from error
    except Exception as error:
        raise InputError(
            f"ckpt_path={path} is not a checkpoint that can be loaded safely: it is truncated, broken, or holds code."
        ) from error
    if not _is_ours(checkpoint):
        raise InputError(f"ckpt_path={path} was not written by spectrain; it holds no configuration of a run.")
    found: dict[str, Any] = checkpoint
    return found


def foreign_version(path: str) -> str:
    """Who wrote a checkpoint that this version cannot restore, and what to do."""
    written = str(load_checkpoint(path)["spectrain_version"])
    if written == spectrain.__version__:
        return f"it was written by spectrain {written}, as this is, but by another commit, or changed since"
    return (
        f"it was written by spectrain {written}, and this is {spectrain.__version__}; install that version to go on "
        f"with it (pip install spectrain=={written}), or start a new run"
    )


def _is_ours(checkpoint: Any) -> bool:
    if not isinstance(checkpoint, dict) or not {"spectrain_version", "config", "state_dict"} <= checkpoint.keys():
        return False
    try:
        config = OmegaConf.create(checkpoint["config"])
    except (OmegaConfBaseException, yaml.YAMLError):
        return False
    return isinstance(config, DictConfig) and all(
        isinstance(config.get(key), DictConfig) for key in ("data", "model", "paths")
    )


def resumed_config(cfg: DictConfig, checkpoint: dict[str, Any], overrides: list[str]) -> DictConfig:
    """The configuration of the checkpoint, with the command line's overrides on top.

    Raises:
        InputError: an override changes what a resumed run must share with the earlier one, or the checkpoint holds
            less than a run needs to go on.
    """
    missing = [key for key in NEEDED_TO_RESUME if key not in checkpoint]
    if missing:  # Lightning would begin again at step 0 without a word
        reason = f"it lacks {', '.join(missing)}; {foreign_version(cfg.ckpt_path)}"
        raise InputError(f"ckpt_path={cfg.ckpt_path} cannot be resumed: {reason}.")
    if checkpoint["spectrain_version"] != spectrain.__version__:
        written = checkpoint["spectrain_version"]
        message = f"ckpt_path={cfg.ckpt_path} was written by spectrain {written}, and this is {spectrain.__version__}."
        warnings.warn(message, SpectrainWarning, stacklevel=2)
    saved = OmegaConf.create(checkpoint["config"])
    assert isinstance(saved, DictConfig)
    keys = [override.split("=", 1)[0].lstrip("+~").split("@")[0] for override in overrides]
    if "experiment" in keys or "debug" in keys:
        merged = cfg
    else:
        merged = OmegaConf.create(OmegaConf.to_container(saved))  # type: ignore[assignment]
        for key in keys:
            if not key.startswith("hydra"):
                OmegaConf.update(merged, key, OmegaConf.select(cfg, key), merge=False, force_add=True)
        if not {"paths", "paths.run_dir"} & set(keys):
            merged.paths.run_dir = None  # the folder in which the checkpoint lies now, wherever it was written
        merged.ckpt_path = cfg.ckpt_path
        merged.resume = cfg.get("resume", False)
        merged.allow_targets = cfg.allow_targets  # what a checkpoint allows itself does not count
    if is_auto(merged):  # the same command line again, as a requeued job has it: the choice was made
        merged.spectral_map = saved.spectral_map
    changes = list(_differences(_fixed(saved), _fixed(merged)))
    if changes:
        raise InputError(
            f"ckpt_path={cfg.ckpt_path} cannot be resumed with other settings: {'; '.join(changes)}. "
            "Leave those overrides out (a checkpoint carries its own), or start a new run without ckpt_path."
        )
    return merged


def checkpoint_in_run_folder(cfg: DictConfig) -> str | None:
    """What ``resume=true`` goes on from: the last checkpoint in ``paths.run_dir``, None while there is none.

    Raises:
        InputError: there is no folder to look in, or a checkpoint was named as well.
    """
    if cfg.ckpt_path is not None:
        raise InputError("resume=true looks for the checkpoint itself; leave either it or ckpt_path out.")
    if not isinstance(cfg.paths.run_dir, str):
        raise InputError("resume=true needs a folder that is the same at every start; give paths.run_dir=runs/NAME.")
    last = Path(cfg.paths.run_dir) / "checkpoints" / "last.ckpt"
    return str(last) if last.exists() else None


def choose_run_folder(cfg: DictConfig, name: str) -> Path:
    """The folder of this run, not yet made: the checkpoint's own when resuming, otherwise a new one.

    With ``resume=true`` also one whose run ended before its first checkpoint: it starts again there.

    Raises:
        InputError: the folder exists and is not empty, or its place is a file.
    """
    if cfg.ckpt_path is not None:
        own = Path(cfg.ckpt_path).parent.parent
        if cfg.paths.run_dir is None or Path(cfg.paths.run_dir).resolve() == own.resolve():
            if (own / "config.yaml").exists():
                return own
            raise InputError(
                f"ckpt_path={cfg.ckpt_path} does not lie in a run folder (RUN/checkpoints/last.ckpt beside "
                "RUN/config.yaml); name the folder to go on in: paths.run_dir=runs/NAME."
            )
    if cfg.paths.run_dir is None:
        job = f"-job{os.environ['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in os.environ else ""  # an array's start together
        stem = f"{name}-{datetime.datetime.now():%Y%m%d_%H%M%S}{job}"
        return next(p for p in _numbered(Path(cfg.paths.output_dir), stem) if not p.exists())
    folder = Path(cfg.paths.run_dir)
    if folder.is_file():
        raise InputError(f"paths.run_dir={folder} is a file; give a folder that does not exist yet.")
    begun = bool(cfg.get("resume")) and (folder / "config.yaml").exists()
    if folder.is_dir() and any(folder.iterdir()) and not begun:
        last = folder / "checkpoints" / "last.ckpt"
        way = (
            f"resume the run in it: ckpt_path={last}" if last.exists() else "remove it: it holds no last.ckpt to resume"
        )
        raise InputError(
            f"paths.run_dir={folder} exists and is not empty; nothing is written over. Give another folder, or {way}."
        )
    return folder


def finished_summary(folder: Path) -> dict[str, Any] | None:
    """The summary.json of a run that came to its end; a run that a signal stopped leaves one as well."""
    path = folder / "summary.json"
    summary: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"interrupted": True}
    return None if summary.get("interrupted") else summary


def make_run_folder(folder: Path, cfg: DictConfig) -> None:
    """Create the folder with config.yaml (resolved) in it."""
    if (folder / "config.yaml").exists() and cfg.ckpt_path is None and not cfg.get("resume"):
        raise InputError(f"another run that started in the same second has taken {folder}; start this one again.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"the run folder {folder} cannot be made ({error.strerror}); give another place with paths.output_dir=..."
        ) from error
    header = f"# spectrain {spectrain.__version__}\n"
    (folder / "config.yaml").write_text(header + OmegaConf.to_yaml(cfg, resolve=True))


def _numbered(parent: Path, stem: str) -> Iterator[Path]:
    yield parent / stem
    for number in range(2, 10_000):
        yield parent / f"{stem}-{number}"


def _fixed(cfg: DictConfig) -> dict[str, Any]:
    values = {key: OmegaConf.select(cfg, key) for key in FIXED_ON_RESUME}
    return {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in values.items()}


def _differences(saved: Any, now: Any, key: str = "") -> Iterator[str]:
    if isinstance(saved, dict) and isinstance(now, dict):
        for name in sorted({*saved, *now}):
            yield from _differences(saved.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    elif saved != now:
        yield f"{key} is {now}, was {saved} in the checkpoint"
