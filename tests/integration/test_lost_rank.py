"""One of two processes dies or stalls: the other ends within the timeout, and says which it was."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from program import TINY, call, configure
from pytorch_lightning.strategies import DDPStrategy

from spectrain.cli import build
from spectrain.cli.errors import run_guarded
from spectrain.lightning import LOST, LostRankError

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
TIMEOUT = 60  # seconds; the processes must also meet within them, on a machine with other work to do
WORDS = (
    *(w for w in TINY if not w.startswith("trainer.max_steps")), "trainer=ddp", "trainer.accelerator=cpu",
    "trainer.max_steps=100000", f"trainer.timeout_seconds={TIMEOUT}", "paths.run_dir=r",
)  # fmt: skip


@pytest.mark.parametrize(("timeout", "collective"), [(600, 580), (7, 3.5)])
def test_the_timeout_leaves_the_time_to_name_a_rank(timeout: int, collective: float) -> None:
    cfg = configure("trainer=ddp", "trainer.accelerator=cpu", f"trainer.timeout_seconds={timeout}")
    strategy = build.build_trainer(cfg, []).strategy
    assert isinstance(strategy, DDPStrategy) and strategy._timeout.total_seconds() == collective


def test_a_timeout_is_a_time() -> None:
    assert "trainer.timeout_seconds=0" in call("trainer=ddp", "trainer.timeout_seconds=0").error


def test_a_lost_rank_has_an_exit_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def lose() -> None:
        raise LostRankError("rank 1 of 2 does not answer.")

    assert run_guarded(lose) == LOST == 3
    assert capsys.readouterr().err == "error: rank 1 of 2 does not answer.\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "stalls"])
@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_process_ends_and_names_it(tmp_path: Path, victim: int, number: signal.Signals) -> None:
    with Path("said.txt").open("w") as said:
        first = subprocess.Popen(
            [sys.executable, str(SCRIPT), *WORDS], stdout=said, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    processes = [psutil.Process(first.pid)]
    try:
        until(lambda: Path("r/checkpoints/last.ckpt").exists(), 120)
        processes += processes[0].children()
        processes[victim].send_signal(number)
        begun, other = time.monotonic(), processes[1 - victim]
        until(lambda: ended(other), TIMEOUT)
        took = time.monotonic() - begun
    finally:
        for process in processes:
            if not ended(process):
                process.kill()
        first.wait()
    text = Path("said.txt").read_text()
    assert "Resume with ckpt_path=" in text and "r/checkpoints/last.ckpt" in text, text
    names = [f"rank {victim} of 2 does not answer", f"rank {victim} of 2 was killed by signal 9"]
    assert any(name in text for name in [*names, "rank 0 or the launcher"][: 2 + (victim == 0)]), text
    if victim == 1:
        assert first.returncode == LOST
        assert ended(processes[1]), "the first process ends one that hangs"
    print(f"rank {victim} {number.name}: {took:.1f} s")


def until(condition: object, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, Path("said.txt").read_text()
        time.sleep(0.1)


def ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
