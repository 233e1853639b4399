"""Reads back what W&B wrote for an offline run: the run's own .wandb file, by W&B's own message classes."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectrain.lightning.wandb_records import records


@dataclass
class Written:
    """One part of an offline run."""

    run: Any = None  # the RunRecord: run_id, project, run_group, job_type, tags
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    alerts: list[Any] = field(default_factory=list)
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None

    def steps(self) -> list[int]:
        """The trainer's step of every row."""
        return [row["trainer/global_step"] for row in self.rows if "trainer/global_step" in row]


def parts(folder: Path, patience: float = 30.0) -> list[Written]:
    """All parts of the run in a run folder, in order.

    W&B's own process empties its buffers a moment after `finish` has returned, so this waits for the record of the end.
    """
    found = []
    for place in sorted((folder / "wandb").glob("offline-run-*")):
        file = place / f"run-{place.name.rpartition('-')[2]}.wandb"
        until = time.monotonic() + patience
        while not file.exists() or (part := read(file)).exit_code is None:
            assert time.monotonic() < until, f"W&B has not written the end of {file}"
            time.sleep(0.2)
        found.append(part)
    return found


def read(file: Path) -> Written:
    """One .wandb file, as far as it is written."""
    part = Written()
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            part.rows.append(items(record.history.item))
        elif kind == "run":
            part.run = record.run
            part.config |= items(record.run.config.update)
        elif kind == "config":
            part.config |= items(record.config.update)
        elif kind == "summary":
            part.summary |= items(record.summary.update)
        elif kind == "alert":
            part.alerts.append(record.alert)
        elif kind == "artifact":
            part.artifacts.append(record.artifact)
        elif kind == "exit":
            part.exit_code = record.exit.exit_code
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            part.artifacts.append(record.request.log_artifact.artifact)
    return part


def items(found: Any) -> dict[str, Any]:
    """{key: value} of W&B's list of items."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in found}
