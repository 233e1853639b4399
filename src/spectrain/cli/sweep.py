"""The jobs of a sweep that failed, in this process or in jobs of a cluster, which tell by a file."""

import importlib.util
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from spectrain.errors import InputError

_FILE = "SPECTRAIN_FAILED_JOBS"  # from the sweep to its jobs; their machines share the present folder
_failed: list[tuple[int, str]] = []  # exit codes and overrides


def begin(argv: Sequence[str]) -> None:
    """Forget an earlier sweep in this process, and prepare for one on a cluster.

    Raises:
        InputError: it needs submitit, which is not installed; or its jobs would go on with each other's run.
    """
    given = {key.lstrip("+"): value for key, _, value in (word.partition("=") for word in argv)}
    folder = given.get("paths.run_dir", "")
    resumes = {"-m", "--multirun"} & set(argv) and given.get("resume", "").lower() == "true"
    if resumes and folder and not {"$", ","} & set(folder):
        raise InputError(
            f"all jobs of this sweep would go on with the one run in paths.run_dir={folder}; give each its own: "
            "paths.run_dir='runs/sweep/${hydra:job.num}'."
        )
    _failed.clear()
    os.environ.pop(_FILE, None)
    launcher = given.get("hydra/launcher", "basic")
    if launcher == "basic":
        return
    if importlib.util.find_spec("submitit") is None:
        raise InputError(f'hydra/launcher={launcher} needs submitit; install it: pip install "spectrain[slurm]".')
    os.environ[_FILE] = str(Path.cwd() / f".failed-jobs-{secrets.token_hex(4)}")


def alone(words: Sequence[str], cfg: DictConfig) -> list[str]:
    """A job's overrides for a run that is no part of a sweep: with what Hydra counts in one (``${hydra:job.num}``)."""
    parts = [word.partition("=") for word in words]
    counted = {key for key, _, value in parts if "${hydra:" in value.replace("\\", "")}  # Hydra escapes it
    return [
        f"{key}={OmegaConf.select(cfg, key.lstrip('+'))}" if key in counted else f"{key}{is_}{value}"
        for key, is_, value in parts
    ]


def remember(code: int, words: str) -> None:
    """One job failed."""
    if _FILE in os.environ:
        with Path(os.environ[_FILE]).open("a") as file:
            file.write(f"{code} {words}\n")
    else:
        _failed.append((code, words))


def failed() -> list[tuple[int, str]]:
    """Exit codes and overrides of the jobs that failed."""
    path = Path(os.environ.pop(_FILE, ""))
    if not path.is_file():
        return list(_failed)
    lines = [line.partition(" ") for line in path.read_text().splitlines()]
    path.unlink()
    return [(int(code), words) for code, _, words in lines]
