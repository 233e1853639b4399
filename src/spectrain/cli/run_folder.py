"""One folder holds one run: where it lies, and what a checkpoint in it may be resumed with."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import spectrain
from spectrain.cli.choose_map import is_auto
from spectrain.errors import InputError

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


def load_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint of spectrain, tensors and primitives only.

    Raises:
        InputError: it is missing, a directory, truncated, wants to run code, or was not written by spectrain.
    """
    if not isinstance(path, str) or not path:
        raise InputError(f"ckpt_path={path!r} is not a path; give a file such as runs/NAME/checkpoints/last.ckpt.")
    file = Path(path)
    if not file.exists():
        raise InputError(f"ckpt_path={path} does not exist; give a file such as runs/NAME/checkpoints/last.ckpt.")
    if file.is_dir():
        raise InputError(f"ckpt_path={path} is a folder; give the file in it, such as {file}/checkpoints/last.ckpt.")
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
        InputError: an override changes what a resumed run must share with the earlier one.
    """
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


def choose_run_folder(cfg: DictConfig, name: str) -> Path:
    """The folder of this run, not yet made: the checkpoint's own when resuming, otherwise a new one.

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
        stem = f"{name}-{datetime.datetime.now():%Y%m%d_%H%M%S}"
        return next(p for p in _numbered(Path(cfg.paths.output_dir), stem) if not p.exists())
    folder = Path(cfg.paths.run_dir)
    if folder.is_file():
        raise InputError(f"paths.run_dir={folder} is a file; give a folder that does not exist yet.")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"paths.run_dir={folder} exists and is not empty; nothing is written over. Give another folder, "
            f"or resume the run in it: ckpt_path={folder}/checkpoints/last.ckpt."
        )
    return folder


def make_run_folder(folder: Path, cfg: DictConfig) -> None:
    """Create the folder with config.yaml (resolved) in it."""
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
