"""Whether a server answers is found out in bounded time."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from spectrain.lightning import wandb_run
from spectrain.lightning.wandb_run import unreachable


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[str]:
    """One that answers every request with 404."""
    made = HTTPServer(("127.0.0.1", 0), type("NotFound", (BaseHTTPRequestHandler,), {"log_message": lambda *_: None}))
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def test_any_answer_will_do(server: str) -> None:
    assert unreachable(server) is None


def test_nobody_there() -> None:
    assert "cannot be reached" in str(unreachable("http://127.0.0.1:9"))
    assert "cannot be reached" in str(unreachable("no address"))


def test_a_server_that_takes_the_call_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_run, "REACH_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        reason = unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "does not answer" in str(reason) or "timed out" in str(reason)
