"""Disks that fill up or cannot be written: exit code 2, one sentence, and the last good checkpoint still loads."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from program import TINY, call, load, resume

from spectrain import plots
from spectrain.lightning import MetricsCSV

RUN = (*TINY, "trainer.max_steps=12", "trainer.val_check_interval=4", "paths.run_dir=r")
LAST = Path("r/checkpoints/last.ckpt")


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "r/somewhere")


def assert_still_good(step: int) -> None:
    assert load(LAST)["global_step"] == step
    assert resume(LAST)["steps"] == 12


def test_a_checkpoint_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    working, calls = torch.save, []

    def save(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        full() if len(calls) > 2 else working(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        error = call(*RUN).error
    assert len(calls) > 2
    assert "disk is full" in error and "free some space" in error
    assert_still_good(4)


def test_a_row_of_metrics_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    working, calls = MetricsCSV._write, []

    def write(self: MetricsCSV, final: bool) -> None:
        calls.append(1)
        full() if len(calls) > 8 else working(self, final)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsCSV, "_write", write)
        assert "disk is full" in call(*RUN).error
    assert_still_good(4)


def test_a_figure_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(plots, "save_figure", full)
        assert "disk is full" in call(*RUN, "figures=true").error
    assert_still_good(12)


def test_a_summary_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    working = Path.write_text

    def write_text(self: Path, *args: Any, **kwargs: Any) -> int:
        return full() if self.name == "summary.json" else working(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write_text)
        assert "disk is full" in call(*RUN).error
    assert_still_good(12)


def test_a_run_folder_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    working = Path.mkdir

    def refused(self: Path, *args: Any, **kwargs: Any) -> None:
        if self.name != "r":
            return working(self, *args, **kwargs)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "r")

    monkeypatch.setattr(Path, "mkdir", refused)
    error = call(*RUN).error
    assert "permission denied" in error and "paths.output_dir" in error
    monkeypatch.undo()
    assert not (tmp_path / "r").exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real, small disk; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or mount is None or subprocess.run([mount, *options], capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


# 100 kB a checkpoint or so: the first one fits, and a later one does not.
@pytest.mark.parametrize("left", [0, 50_000, 150_000, 250_000])
def test_a_real_disk_fills_up(disk: Path, left: int) -> None:
    free = shutil.disk_usage(disk).free
    (disk / "ballast").write_bytes(b"x" * (free - left))
    error = call(*RUN, f"paths.run_dir={disk}/r", "model.width=64", "figures=true").error
    assert "free some space" in error
    for checkpoint in (disk / "r" / "checkpoints").glob("*.ckpt"):
        assert load(checkpoint)["global_step"] in (4, 8, 12), "a broken file under a good name"


def test_a_real_read_only_disk(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert "read-only" in call(*TINY, f"paths.output_dir={disk}").error
    assert list(disk.iterdir()) == []
