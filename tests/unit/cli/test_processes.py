"""Which process writes, and how the others learn where."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from torch.distributed import TCPStore

from spectrain.cli.processes import agreed_folder
from spectrain.cli.rank import rank
from spectrain.errors import InputError

CFG = OmegaConf.create({"paths": {"run_dir": None}, "ckpt_path": None})
LAUNCHERS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", "SPECTRAIN_RUN_FOLDER", "TORCHELASTIC_USE_AGENT_STORE")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    yield
    os.environ.pop("SPECTRAIN_RUN_FOLDER", None)


def choose() -> Path:
    return Path("runs/first")


def must_not_choose() -> Path:
    raise AssertionError("only the first process names the folder")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 0),
        ({"LOCAL_RANK": "1"}, 1),
        ({"RANK": "3", "LOCAL_RANK": "0"}, 3),
        ({"SLURM_PROCID": "2"}, 2),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, 1),
    ],
)
def test_rank(environment: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rank() == expected


def test_the_first_process_tells_those_that_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert agreed_folder(choose, CFG) == Path("runs/first")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert agreed_folder(must_not_choose, CFG) == Path("runs/first")


def test_torchrun_has_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    server = TCPStore("127.0.0.1", 0, is_master=True)
    for name, value in {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(server.port),
        "RANK": "0",
    }.items():
        monkeypatch.setenv(name, value)
    agreed_folder(choose, CFG)
    monkeypatch.delenv("SPECTRAIN_RUN_FOLDER")
    monkeypatch.setenv("RANK", "1")
    assert agreed_folder(must_not_choose, CFG) == Path("runs/first")


def test_processes_from_outside_need_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    with pytest.raises(InputError, match=r"give paths.run_dir=runs/NAME"):
        agreed_folder(must_not_choose, CFG)
    named = OmegaConf.create({"paths": {"run_dir": "runs/a"}, "ckpt_path": None})
    assert agreed_folder(must_not_choose, named) == Path("runs/a")
    resumed = OmegaConf.create({"paths": {"run_dir": None}, "ckpt_path": "runs/b/checkpoints/last.ckpt"})
    assert agreed_folder(must_not_choose, resumed) == Path("runs/b")
