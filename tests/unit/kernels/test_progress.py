"""The progress line: nothing for short work, a share and an estimate for long work."""

import pytest

from spectrain.kernels import progress
from spectrain.kernels.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_short_work_prints_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("kernel", 10)
    for k in range(10):
        clock[0] = 0.19 * (k + 1)
        bar.add(1)
    bar.close()
    assert capsys.readouterr().err == ""


def test_long_work_says_how_far_it_is_and_how_long_it_takes(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Progress("kernel", 100)
    clock[0] = 3.0
    bar.add(25)
    assert capsys.readouterr().err == "kernel:  25 %, about 9 s left\n"
    clock[0] = 10.0
    bar.add(25)
    assert capsys.readouterr().err == ""  # a file gets a line every half minute
    clock[0] = 40.0
    bar.add(30)
    assert capsys.readouterr().err == "kernel:  80 %, about 10 s left\n"


def test_it_can_be_silent(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("kernel", 100, show=False)
    clock[0] = 3.0
    bar.add(25)
    bar.close()
    assert capsys.readouterr().err == ""
