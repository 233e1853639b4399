"""kill -9 at any moment, then ``ckpt_path=RUN/checkpoints/last.ckpt``: the same run, to the bit.

A child is a fork of this process, which has imported everything: a run takes a second.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from program import TINY, call, load
from sameness import LAST, assert_equal, rows, state

from spectrain.lightning import GracefulInterrupt, MetricsCSV, PhysicsModule
from spectrain.preconditioners import Landmarks
from spectrain.preconditioners.batch_side import BatchPreconditioner

PERIOD, STEPS = 12, 60
RUN = (
    *(w for w in TINY if not w.startswith(("trainer.max", "trainer.val", "data.size", "model.width"))),
    f"trainer.max_steps={STEPS}", f"trainer.val_check_interval={PERIOD}", "spectrum.every_n_steps=10",
)  # fmt: skip
PICTURE = ("data.size=20", "model.width=32", "data.batch_size=150")
PDE = ("experiment=pinn_poisson2d", "data.points=80", "data.boundary_points=30", "data.resolution=21", "model.width=16")
WAYS: dict[str, tuple[str, ...]] = {
    "sample": (*PICTURE, "preconditioner=sample"),
    "parameter": (*PICTURE, "preconditioner=parameter", "optimizer=sgd"),
    "batch": (*PICTURE, "preconditioner=batch", "preconditioner.landmarks=32"),
    "equation": (*PDE, "optimizer=adam", "preconditioner=sample"),
}


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(calls: int, working: Callable[..., Any], instead: Callable[..., Any]) -> Callable[..., Any]:
    """`working` so many times, then `instead`."""
    made = []

    def fn(*args: Any, **kwargs: Any) -> Any:
        made.append(1)
        return (working if len(made) <= calls else instead)(*args, **kwargs)

    return fn


def in_a_step(patch: pytest.MonkeyPatch, chance: random.Random) -> None:
    step = chance.randint(PERIOD + 1, STEPS - 1)

    def end(self: GracefulInterrupt, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == step:
            kill()

    patch.setattr(GracefulInterrupt, "on_train_batch_end", end)


def in_a_checkpoint(patch: pytest.MonkeyPatch, chance: random.Random) -> None:
    """Half of the file is written. Two checkpoints, best and last, at each validation."""
    working = torch.save

    def half(checkpoint: Any, file: Any) -> None:
        working(checkpoint, file)
        file.truncate(file.tell() // 2)
        file.flush()
        kill()

    patch.setattr(torch, "save", after(chance.randint(2, 7), working, half))


def before_a_rename(patch: pytest.MonkeyPatch, chance: random.Random) -> None:
    """The new checkpoint is whole, under its other name."""
    working, replaced, good = os.replace, [], chance.randint(2, 7)

    def replace(source: Any, target: Any) -> None:
        if str(target).endswith(".ckpt"):
            replaced.append(1)
            if len(replaced) > good:
                kill()
        working(source, target)

    patch.setattr(os, "replace", replace)


def in_a_refresh(patch: pytest.MonkeyPatch, chance: random.Random) -> None:
    """Or, where there is none, in the batch's own kernel."""
    for owner, name, first, last in (
        (Landmarks, "spectrum", 4, 6),
        (PhysicsModule, "_refresh", 2, 5),
        (BatchPreconditioner, "run", PERIOD + 1, STEPS - 1),
    ):
        working = getattr(owner, name)

        def broken(*args: Any, _working: Callable[..., Any] = working, **kwargs: Any) -> None:
            _working(*args, **kwargs)
            kill()

        patch.setattr(owner, name, after(chance.randint(first, last), working, broken))


def in_a_row_of_metrics(patch: pytest.MonkeyPatch, chance: random.Random) -> None:
    """Half of a row is on the disk."""

    def torn(self: MetricsCSV) -> None:
        with self.path.open("a") as file:
            file.write("1")  # of "13,..."
        kill()

    patch.setattr(MetricsCSV, "_write", after(chance.randint(PERIOD + 8, STEPS), MetricsCSV._write, torn))


def right_after_a_checkpoint(patch: pytest.MonkeyPatch, chance: random.Random) -> None:
    """The first moment at which a new last.ckpt is there."""
    working, replaced, good = os.replace, [], chance.randint(0, 3)

    def replace(source: Any, target: Any) -> None:
        working(source, target)
        if str(target).endswith("last.ckpt"):
            replaced.append(1)
            if len(replaced) > good:
                kill()

    patch.setattr(os, "replace", replace)


def in_a_child(*words: str, moment: Callable[[pytest.MonkeyPatch], None] | None = None, seconds: float = 0.0) -> int:
    """The exit code of the program in a process of its own, killed `seconds` after its first checkpoint if above 0."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            if moment is not None:
                moment(pytest.MonkeyPatch())
            outcome = call(*words)
            code = outcome.code
            Path("said.txt").write_text(outcome.out + outcome.err)
        finally:
            os._exit(code)
    if seconds:
        while not Path("part", LAST).exists():
            time.sleep(0.005)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


Whole = Callable[[str], tuple[Path, float]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The folder of the uninterrupted run, made once for each way, and the seconds that it took."""
    made: dict[str, tuple[Path, float]] = {}

    def run(way: str) -> tuple[Path, float]:
        if way not in made:
            folder, begun = tmp_path_factory.mktemp("whole") / "run", time.monotonic()
            assert in_a_child(*RUN, *WAYS[way], f"paths.run_dir={folder}") == 0, Path("said.txt").read_text()
            made[way] = folder, time.monotonic() - begun
        return made[way]

    return run


def check(whole: Whole, way: str, moment: Callable[[pytest.MonkeyPatch, random.Random], None] | None) -> None:
    chance = random.Random(f"{way} {moment.__name__ if moment else ''}")
    folder, took = whole(way)
    part = (*RUN, *WAYS[way], "paths.run_dir=part")
    if moment is None:
        code = in_a_child(*part, seconds=chance.uniform(0.01, 0.25) * took)
    else:
        code = in_a_child(*part, moment=lambda patch: moment(patch, chance))
    assert code == -signal.SIGKILL
    resumed = load(Path("part", LAST))["global_step"]
    assert PERIOD <= resumed <= STEPS
    assert in_a_child(f"ckpt_path=part/{LAST}") == 0, Path("said.txt").read_text()
    assert_equal(state(folder, PERIOD), state(Path("part"), PERIOD))
    assert rows(folder) == rows(Path("part"))
    assert not list(Path("part").rglob("*.part"))


MOMENTS = (
    None,
    in_a_step,
    in_a_checkpoint,
    before_a_rename,
    in_a_refresh,
    in_a_row_of_metrics,
    right_after_a_checkpoint,
)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: m.__name__ if m else "at_any_time")
@pytest.mark.parametrize("way", [*WAYS])
def test_a_killed_run_goes_on_as_if_nothing_had_been(
    whole: Whole, way: str, moment: Callable[[pytest.MonkeyPatch, random.Random], None] | None
) -> None:
    check(whole, way, moment)


def test_killed_in_a_checkpoint(whole: Whole) -> None:
    check(whole, "sample", in_a_checkpoint)


def test_killed_before_the_first_checkpoint() -> None:
    def at_step_5(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(MetricsCSV, "_write", after(5, MetricsCSV._write, lambda *_: kill()))

    words = (*RUN, *WAYS["sample"], "paths.run_dir=part")
    assert in_a_child(*words, moment=at_step_5) == -signal.SIGKILL
    assert Path("part/config.yaml").exists()
    assert "before its first checkpoint" in call(f"ckpt_path=part/{LAST}").error
    error = call(*words).error
    assert "remove it" in error and "ckpt_path" not in error
