"""``experiment=NAME`` where the experiment is a study of many parts: from configuration to figures and summary."""

import contextlib
import csv
import json
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict

from spectrain.cli import build
from spectrain.cli.allowlist import check_targets
from spectrain.cli.fitting import end_by_signal
from spectrain.cli.overrides import composed
from spectrain.cli.processes import world_size
from spectrain.cli.run_folder import (
    checkpoint_in_run_folder,
    choose_run_folder,
    finished_summary,
    make_run_folder,
)
from spectrain.cli.tracker import build_tracker
from spectrain.cli.validation import validate
from spectrain.errors import InputError
from spectrain.lightning.interrupt import SIGNALS
from spectrain.lightning.study_report import finish_study
from spectrain.lightning.tracking import close
from spectrain.studies import Cells, Trained

# What a study itself reads of the configuration. Other overrides are for the runs that it trains, if it trains any.
OWN_KEYS = ("study", "paths", "logger", "figures", "show_traceback", "seed", "resume")
OF_BOTH = ("experiment", "size", "allow_targets", "debug")
# Of how a job was started (scripts/slurm/train.sbatch gives them); a study is one process, whatever it does.
OF_THE_LAUNCH = ("trainer.devices", "trainer.num_nodes")
# What the numbers do not depend on.
FREE = ("paths", "logger", "callbacks", "figures", "show_traceback", "resume", "allow_targets", "debug")


def run_study(
    cfg: DictConfig, overrides: Sequence[str], name: str, train: Callable[[DictConfig], dict[str, Any]]
) -> dict[str, Any]:
    """Run the study of `cfg`, or go on with the one that lies in ``paths.run_dir``; return its summary.

    `overrides` are the command line's, `train` is the training program's own function.

    Raises:
        InputError: a setting cannot be used, or has no effect here.
        KeyboardInterrupt: Ctrl-C; what is finished is kept.
        SystemExit: so ends SIGTERM or SIGUSR1.
    """
    validate(cfg)
    check_targets(cfg, cfg.allow_targets)
    if cfg.ckpt_path is not None:
        raise InputError("ckpt_path resumes one run; a study goes on when it is started again with its paths.run_dir.")
    if cfg.resume:
        checkpoint_in_run_folder(cfg)  # a study has none, but needs the same folder at every start
    if world_size(cfg) > 1:
        raise InputError("an experiment of many parts runs in one process; give trainer.devices=1 trainer.num_nodes=1.")
    passed_on = [word for word in overrides if _key(word) not in OWN_KEYS]
    without_effect = [w for w in passed_on if _key(w) not in OF_BOTH and _name(w) not in OF_THE_LAUNCH]
    if without_effect and not _trains(cfg):
        raise InputError(
            f"{', '.join(without_effect)} has no effect on this experiment, which does not train by the configured "
            "run; its own settings are the keys study.NAME (--cfg job lists them)."
        )
    study = build.build(cfg, "study")
    for words in (cfg.study.get("ways") or {}).values():  # known before anything has been trained
        _check_not_set_twice(words, passed_on)
    folder = _study_folder(cfg, name)

    def train_cell(words: Sequence[str], place: Path) -> Trained:
        _check_not_set_twice(words, passed_on)
        given = [f"seed={cfg.seed}", f"figures={str(cfg.figures).lower()}"]
        return _train_cell([*given, *passed_on, *words], place, train)

    if not (folder / "cells").exists():
        make_run_folder(folder, cfg)
        (folder / "cells").mkdir(exist_ok=True)
    cfg.paths.run_dir = str(folder)
    loggers = build_tracker(cfg, folder)
    settings: dict[str, Any] = dict(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
    for logger in loggers:
        logger.log_hyperparams(settings)
    print(f"run folder: {folder}", flush=True)
    try:
        with _ended_by_signals():
            findings = study.run(Cells(folder / "cells", train_cell, say=lambda line: print(line, flush=True)))
    except BaseException as error:
        if not isinstance(error, Exception):
            print(f"Stopped. Start it again with paths.run_dir={folder} to go on; finished parts are kept.")
        close(loggers, exit_code=1)  # a later job of a sweep must not log into this run
        raise
    return finish_study(folder, findings, loggers, figures=cfg.figures)


def _check_not_set_twice(words: Sequence[str], passed_on: Sequence[str]) -> None:
    set_twice = {_name(word) for word in words} & {_name(word) for word in passed_on}
    if set_twice:
        raise InputError(
            f"{', '.join(sorted(set_twice))} cannot be set here: the experiment gives its runs values of its own; its "
            "settings are the keys study.NAME (--cfg job lists them). study=none makes one run, where the experiment "
            "has one."
        )


def _name(word: str) -> str:
    return word.split("=", 1)[0].lstrip("+~").split("@")[0]


def _key(word: str) -> str:
    return _name(word).split(".")[0]


def _trains(cfg: DictConfig) -> bool:
    return bool(getattr(get_object(cfg.study["_target_"]), "trains", False))


def _study_folder(cfg: DictConfig, name: str) -> Path:
    """A new folder, or that of the same study, stopped before."""
    if cfg.paths.run_dir is None:
        return choose_run_folder(cfg, name)
    folder = Path(cfg.paths.run_dir)
    earlier = folder / "config.yaml"
    if not earlier.exists() or not (folder / "cells").exists():
        return choose_run_folder(cfg, name)
    if _settings(OmegaConf.load(earlier)) != _settings(cfg):
        raise InputError(
            f"paths.run_dir={folder} holds an experiment with other settings; give another folder, or the same "
            f"overrides as in {earlier}."
        )
    return folder


def _settings(cfg: Any) -> dict[str, Any]:
    """All that the numbers depend on."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return {key: plain[key] for key in plain if key not in FREE}


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGUSR1 stop a study as Ctrl-C does, in parts that do not train."""
    before = {number: signal.getsignal(number) for number in SIGNALS if number != signal.SIGINT}
    for number in before:
        signal.signal(number, lambda number, frame: end_by_signal(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _train_cell(words: Sequence[str], place: Path, train: Callable[[DictConfig], dict[str, Any]]) -> Trained:
    """Train in `place`, unless a finished run lies there; what the run says goes into a file beside it."""
    if finished_summary(place) is None:
        shutil.rmtree(place, ignore_errors=True)  # of a study that was stopped in the middle of it
        cfg = composed([*words, "logger=none", "baseline=false", f"paths.run_dir='{place}'"])
        with open_dict(cfg):
            cfg.study = None  # the experiment's file is that of the runs, too
        place.parent.mkdir(parents=True, exist_ok=True)
        out, err = contextlib.redirect_stdout, contextlib.redirect_stderr
        with place.with_name(f"{place.name}.log").open("w") as log, out(log), err(log):
            train(cfg)
    with (place / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {key: np.array([float(row[key] or "nan") for row in rows]) for key in rows[0]} if rows else {}
    return Trained(columns, json.loads((place / "summary.json").read_text()))
