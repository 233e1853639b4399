"""W&B's own file of a run, read back: what it holds after a run that was killed is known from it alone."""

import contextlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path

from wandb.proto import wandb_internal_pb2


def records(file: Path) -> Iterator[wandb_internal_pb2.Record]:
    """The records of a .wandb file, as far as it is written and whole.

    LevelDB's log format after 7 bytes of W&B's own: blocks of 32 KiB, chunks (crc 4, length 2, type 1, data).
    """
    raw, place, collected = file.read_bytes(), 7, b""
    while place + 7 <= len(raw):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", raw, place + 4)
        if place + 7 + length > len(raw):
            return
        collected += raw[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, last
            record = wandb_internal_pb2.Record()
            try:
                record.ParseFromString(collected)
            except Exception:  # protobuf's own, of a damaged record
                return
            yield record
            collected = b""


def last_step(run_dir: Path) -> int:
    """The trainer's step of the last row in all parts of a run; 0 where there is none."""
    steps = [0]
    for file in (run_dir / "wandb").glob("*run-*/run-*.wandb"):
        for record in records(file):
            if record.WhichOneof("record_type") == "history":
                found = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                with contextlib.suppress(ValueError, TypeError):  # of a damaged row
                    steps.append(int(json.loads(found.get("trainer/global_step", "0"))))
    return max(steps)
