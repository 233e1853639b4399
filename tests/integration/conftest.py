"""Every test of the program runs in a folder of its own and leaves the process as it found it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import wandb


@pytest.fixture(autouse=True)
def clean_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPECTRAIN_ARGS", raising=False)  # `make test` sets it
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    handler = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is handler, "a run must give Ctrl-C back"
    assert wandb.run is None, "a run must finish its W&B run"
    assert "WANDB_MODE" not in os.environ
    plt.close("all")
