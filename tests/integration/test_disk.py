"""Disks that fill up or cannot be written: exit code 2, one sentence, and the last good checkpoint still loads."""

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from program import TINY, call, load, resume
from sameness import losses

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


@pytest.mark.parametrize("again", [False, True], ids=["full", "full for a while"])
def test_a_row_of_metrics_that_does_not_fit(monkeypatch: pytest.MonkeyPatch, again: bool) -> None:
    """The run goes on, and the rows are written as soon as there is room."""
    working, calls = MetricsCSV._write, []

    def write(self: MetricsCSV) -> None:
        calls.append(1)
        full() if len(calls) > 8 and not (again and len(calls) > 12) else working(self)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsCSV, "_write", write)
        outcome = call(*RUN)
    assert outcome.err.count("metrics.csv cannot be written") == 1
    if again:
        assert outcome.code == 0
        assert [step for step, _ in losses(Path("r"))] == [str(step) for step in range(12)]
    else:
        assert "disk is full" in outcome.error
    assert "summary" in outcome.out and Path("r/summary.json").exists()
    assert_still_good(12)


@pytest.mark.parametrize("experiment", [(), ("experiment=pinn_poisson2d", "data.points=40", "data.resolution=9")])
def test_a_figure_that_does_not_fit(monkeypatch: pytest.MonkeyPatch, experiment: tuple[str, ...]) -> None:
    """The others are drawn, and all else is there."""
    working = plots.save_figure

    def save(figure: Any, path: Path, arrays: Any) -> Any:
        return full() if path.name == "spectrum" else working(figure, path, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(plots, "save_figure", save)
        outcome = call(*(w for w in RUN if not (experiment and w.startswith("data"))), *experiment, "figures=true")
    assert "disk is full" in outcome.error and "the figure spectrum could not be written" in outcome.err
    drawn = {path.name for path in Path("r/figures").glob("*.png")}
    assert drawn == (
        {"solution.png", "convergence.png"} if experiment else {"reconstruction.png", "psnr.png", "band_energy.png"}
    )
    assert Path("r/summary.json").exists() and "summary" in outcome.out
    assert load(LAST)["global_step"] == 12


def test_a_summary_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    working = Path.write_text

    def write_text(self: Path, *args: Any, **kwargs: Any) -> int:
        return full() if self.name == "summary.json" else working(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write_text)
        outcome = call(*RUN)
    assert "disk is full" in outcome.error and "summary.json could not be written" in outcome.err
    assert Path("r/history.csv").exists() and "PSNR" in outcome.out
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


@pytest.mark.parametrize(("limit", "stops"), [(3_000, True), (100_000, False)], ids=["checkpoint", "figure"])
def test_a_limit_on_the_size_of_a_file(limit: int, stops: bool) -> None:
    """A real one (ulimit -f), which stands for a quota too: in a process of its own, since it cannot be lifted."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            outcome = call(*RUN, "figures=true", "model.width=8", "spectrum.rank=4", "data.size=8")
            code = outcome.code
            Path("said.txt").write_text(outcome.err[-2000:])
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    said = Path("said.txt").read_text()
    assert "error: a file is larger than is allowed" in said or "a checkpoint could not be written" in said
    assert LAST.exists() != stops
    if not stops:
        assert load(LAST)["global_step"] == 12
        assert Path("r/summary.json").exists() and "the figure band_energy could not be written" in said


def test_a_real_read_only_disk(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert "read-only" in call(*TINY, f"paths.output_dir={disk}").error
    assert list(disk.iterdir()) == []
