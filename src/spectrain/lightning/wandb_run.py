"""One Weights & Biases run for one run folder: opened at once, online or not, and the same one after a resume."""

import secrets
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import WandbLogger

from spectrain.errors import InputError
from spectrain.lightning.wandb_records import last_step

REACH_SECONDS = 3.0  # for the server's first answer
INIT_SECONDS = 20.0  # for the run to be opened there
FINISH_SECONDS = 5  # at the end, beside what Tracker waits
NO_LOGIN = "there is no login (run `wandb login` once, or set WANDB_API_KEY)"
UPLOAD_SECONDS = 600  # the same where checkpoints are to be uploaded


class WandbRun(WandbLogger):
    """Numbers W&B's own rows by the trainer's step, and makes one artifact of best.ckpt and last.ckpt where asked.

    WandbLogger counts rows from 0 in every part of a resumed run, so that parts overlap, and would call both files the
    best.
    """

    def __init__(self, run: Any, folder: Path, checkpoints: bool) -> None:
        super().__init__(experiment=run)
        self._folder, self._checkpoints = folder, checkpoints
        self.last_step = last_step(folder)  # of an earlier part; fewer than were logged, where that was killed

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Into the row of `step`; media as well as scalars."""
        row = dict(metrics) if step is None else {**metrics, "trainer/global_step": step}
        self.experiment.log(row, step=step)

    def finalize(self, status: str) -> None:
        """Add the artifact."""
        files = sorted((self._folder / "checkpoints").glob("*.ckpt"))
        if self._checkpoints and files and status == "success":
            artifact = wandb.Artifact(f"checkpoints-{self.experiment.id}", type="model")
            for file in files:
                artifact.add_file(str(file))
            self.experiment.log_artifact(artifact)

    def sync_command(self, unfinished: bool) -> str | None:
        """What uploads the run: an offline one, one folder for each part of it, or what is left of an online one."""
        pattern = "offline-run-*" if self.experiment.offline else f"run-*-{self.experiment.id}"
        if self.experiment.disabled or not (self.experiment.offline or unfinished):
            return None
        return f"wandb sync {' '.join(str(part) for part in sorted((self._folder / 'wandb').glob(pattern)))}"


def wandb_logger(
    run_dir: str | Path,
    *,
    project: str = "spectrain",
    entity: str | None = None,
    name: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: list[str] | None = None,
    mode: str = "offline",
    checkpoints: bool = False,
) -> WandbRun:
    """A W&B run in `run_dir`; its id is made once and kept there, so that a resumed run goes on in the same one.

    ``mode="offline"`` needs no account. ``mode="online"`` without a login, or a server that does not answer, is said in
    one line and goes on offline. `checkpoints`: keep best and last as artifacts at the end.

    The run is opened here and not by WandbLogger, whose ``offline=True`` leaves WANDB_MODE in the environment for every
    later job of a sweep.

    Raises:
        InputError: W&B refuses the settings.
    """
    id_file = Path(run_dir) / "wandb_id.txt"
    run_id = id_file.read_text().strip() if id_file.exists() else secrets.token_hex(4)
    id_file.write_text(run_id + "\n")
    settings: dict[str, Any] = {
        "project": project,
        "entity": entity,
        "name": name or Path(run_dir).name,
        "group": group,
        "job_type": job_type,
        "tags": tags,
        "dir": str(Path(run_dir).absolute()),  # W&B's own process may have been started in another folder
        "id": run_id,
        "reinit": "finish_previous",  # of a job in this process that failed; wandb would go on in its run
    }
    finish = UPLOAD_SECONDS if checkpoints else FINISH_SECONDS
    run = _open(settings, mode, finish)
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbRun(run, Path(run_dir), checkpoints)


def _open(settings: dict[str, Any], mode: str, finish_seconds: float) -> Any:
    quiet = wandb.Settings(
        silent=True, console="off", init_timeout=INIT_SECONDS, finish_timeout=finish_seconds, x_disable_stats=False
    )
    if mode == "online":
        reason = unreachable(wandb.setup().settings.base_url)
        try:
            if reason is None and not wandb.login(prompt=False):
                reason = NO_LOGIN
            if reason is None:
                return wandb.init(**settings, mode="online", resume="allow", settings=quiet)
        except Exception as error:  # whatever the network makes of it
            reason = str(error).splitlines()[0]
        print(f"warning: W&B is not online: {reason}; the run is kept offline.", file=sys.stderr, flush=True)
        mode = "offline"
    try:
        return wandb.init(**settings, mode=mode, resume="allow", settings=quiet)  # type: ignore[arg-type]
    except wandb.errors.UsageError as error:
        raise InputError(f"logger: W&B refuses these settings: {error}") from error
    except (wandb.Error, OSError) as error:  # such as a process of its own that does not start
        print(f"warning: W&B does not start: {error}; the run goes on without it.", file=sys.stderr, flush=True)
        return wandb.init(mode="disabled", settings=quiet)


def unreachable(url: str) -> str | None:
    """Why a server does not answer, None where it does; found out within `REACH_SECONDS`."""
    answers: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=REACH_SECONDS).close()
            answers.append(None)
        except urllib.error.HTTPError:  # an answer
            answers.append(None)
        except (OSError, ValueError) as error:
            answers.append(f"{url} cannot be reached ({getattr(error, 'reason', error)})")

    asking = threading.Thread(target=ask, daemon=True)  # the timeout above does not cover the name's look-up
    asking.start()
    asking.join(REACH_SECONDS)
    return answers[0] if answers else f"{url} does not answer within {REACH_SECONDS:.0f} s"
