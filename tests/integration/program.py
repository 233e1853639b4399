"""Runs the program as a person does, in this process: importing torch again would cost seconds each time."""

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from spectrain.cli import evaluate as evaluate_program
from spectrain.cli import train as train_program
from spectrain.cli.config_dir import config_dir

# A run of a third of a second.
TINY = (
    "data.size=12",
    "model.width=16",
    "model.depth=2",
    "spectrum.rank=8",
    "spectrum.subset_size=64",
    "trainer.max_steps=6",
    "trainer.val_check_interval=3",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    "logger=none",
    "figures=false",
    "baseline=false",
)


def configure(*overrides: str, name: str = "train") -> DictConfig:
    """The configuration that `overrides` make."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose(name, list(overrides))


def train(folder: Path, *overrides: str, tiny: tuple[str, ...] = TINY) -> dict[str, Any]:
    """A tiny run in `folder`, which must not exist; its summary."""
    return train_program.train(configure(*tiny, f"paths.run_dir={folder}", *overrides))


def resume(checkpoint: Path, *overrides: str) -> dict[str, Any]:
    """`ckpt_path=checkpoint` with further overrides, and nothing else."""
    words = [f"ckpt_path={checkpoint}", *overrides]
    return train_program.train(configure(*words), words)


def load(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint, as safely as the program reads it."""
    found: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    return found


@dataclass(frozen=True)
class Outcome:
    """How a call of the program ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one `error:` line; the call must have been refused as the issue asks for."""
        lines = [line for line in self.err.splitlines() if line.startswith("error:")]
        assert self.code == 2, f"exit code {self.code}\n{self.out}\n{self.err}"
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.out + self.err
        others = [line for line in self.err.splitlines() if line and not line.startswith(("error:", "warning:"))]
        assert others == [], self.err
        return lines[0]


def call(*words: str, program: str = "train") -> Outcome:
    """`spectrain-train WORDS` (or evaluate) in this process, from the present folder."""
    main = {"train": train_program.main, "evaluate": evaluate_program.main}[program]
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    code = 0
    sys.argv = [f"spectrain-{program}", *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = argv
        GlobalHydra.instance().clear()
    return Outcome(code, out.getvalue(), err.getvalue())
