"""Reads back what W&B wrote for an offline run: the run's own .wandb file, by W&B's own message classes."""

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
    from wandb.proto import wandb_internal_pb2

    part = Written()
    for data in leveldb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
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


def leveldb_records(raw: bytes) -> Iterator[bytes]:
    """LevelDB's log format after 7 bytes of W&B's own: blocks of 32 KiB, chunks (crc 4, length 2, type 1, data)."""
    place, collected = 7, b""
    while place + 7 <= len(raw):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", raw, place + 4)
        collected += raw[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, last
            yield collected
            collected = b""
