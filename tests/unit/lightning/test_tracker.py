"""What a tracker that fails, hangs or is slow does to a run: nothing."""

import threading
from typing import Any

import pytest
from pytorch_lightning.loggers import Logger

from spectrain.lightning import Tracker
from spectrain.lightning import tracker as tracker_module


class Recorder(Logger):
    """Keeps what it is told; `act` is called first."""

    def __init__(self, act: Any = lambda: None) -> None:
        super().__init__()
        self.act, self.rows, self.ends = act, [], []

    @property
    def name(self) -> str:
        return "recorder"

    @property
    def version(self) -> str:
        return "1"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.act()
        self.rows.append((step, metrics))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.rows.append((None, params))

    def finalize(self, status: str) -> None:
        self.ends.append(status)


def test_everything_arrives_in_order_and_nothing_after_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    inner = Recorder()
    tracker = Tracker(inner)
    tracker.log_hyperparams({"seed": 0})
    row = {"a": 1.0}
    for step in range(50):
        tracker.log_metrics(row, step)
    row["a"] = 2.0  # Lightning goes on with its dictionary
    tracker.finalize("success")
    assert inner.ends == [], "the figures come after Lightning's end"
    tracker.close()
    tracker.log_metrics({"a": 3.0}, 50)
    assert inner.rows == [(None, {"seed": 0}), *((step, {"a": 1.0}) for step in range(50))]
    assert inner.ends == ["success"]
    assert capsys.readouterr().err == ""


def test_steps_never_go_back() -> None:
    inner = Recorder()
    tracker = Tracker(inner, first_step=7)
    for step in (5, 6, 7, 8):
        tracker.log_metrics({}, step)
    tracker.close()
    assert [step for step, _ in inner.rows] == [7, 8]


def test_a_tracker_that_fails_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    inner = Recorder(fail)
    tracker = Tracker(inner)
    for step in range(20):
        tracker.log_metrics({}, step)
    tracker.close("failed")
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: the tracker Recorder failed (OSError: [Errno 28] No space left on device)")
    assert "did not take 20 entries" in last
    assert inner.ends == ["failed"], "what still works goes on"


def test_a_tracker_that_hangs_holds_neither_the_steps_nor_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    release = threading.Event()
    inner = Recorder(release.wait)
    tracker = Tracker(inner, patience=0.05)
    for step in range(20):
        tracker.log_metrics({}, step)
    assert inner.rows == []
    tracker.close()
    assert tracker.left == 22  # the rows, save and finalize
    assert "is slow: 22 entries had not reached it" in capsys.readouterr().err
    release.set()
    assert inner.ends == [], "what is late is dropped"


def test_what_waits_for_a_tracker_is_bounded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracker_module, "MOST_WAITING", 10)
    release = threading.Event()
    tracker = Tracker(Recorder(release.wait), patience=0.05)
    for step in range(100):
        tracker.log_metrics({}, step)
    assert tracker.dropped >= 89
    tracker.close()
    release.set()
    assert f"did not take {tracker.dropped} entries" in capsys.readouterr().err


def test_a_full_queue_that_drains_takes_the_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "MOST_WAITING", 3)
    release, shown = threading.Event(), []
    inner = Recorder(release.wait)
    tracker = Tracker(inner)
    for step in range(10):
        tracker.log_metrics({}, step)
    threading.Timer(0.05, release.set).start()
    tracker.close(last=lambda: shown.append("figures"))
    assert inner.ends == ["success"] and shown == ["figures"] and tracker.left == 0
