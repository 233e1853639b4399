"""W&B's own file of a run, read back when it is damaged."""

import struct
from pathlib import Path

from wandb.proto import wandb_internal_pb2

from spectrain.lightning.wandb_records import last_step


def chunk(data: bytes) -> bytes:
    return struct.pack("<IHB", 0, len(data), 1) + data


def row(step: str) -> bytes:
    record = wandb_internal_pb2.Record()
    record.history.item.add(key="trainer/global_step", value_json=step)
    return chunk(record.SerializeToString())


def test_a_damaged_record_ends_the_reading_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "wandb" / "run-1" / "run-1.wandb"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(7) + row("3") + row("8") + chunk(b"\xff" * 20) + row("9"))
    assert last_step(tmp_path) == 8
    file.write_bytes(bytes(7) + row("3") + row("8x"))
    assert last_step(tmp_path) == 3
