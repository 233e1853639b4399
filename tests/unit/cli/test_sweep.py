"""Failed jobs of a sweep are known here, wherever they ran."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from spectrain.cli import sweep
from spectrain.errors import InputError


@pytest.fixture(autouse=True)
def forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    sweep.begin([])


def test_jobs_in_this_process() -> None:
    sweep.begin(["-m", "seed=0,1"])
    sweep.remember(2, "seed=0")
    assert sweep.failed() == [(2, "seed=0")]
    sweep.begin(["-m", "seed=0,1"])
    assert sweep.failed() == []


def test_jobs_in_other_processes_tell_by_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    sweep.begin(["-m", "seed=0,1", "hydra/launcher=slurm"])
    sweep._failed.append((1, "of this process"))  # which a job elsewhere cannot reach
    sweep.remember(2, "seed=0 data.path='a b'")
    sweep.remember(1, "seed=1")
    assert sweep.failed() == [(2, "seed=0 data.path='a b'"), (1, "seed=1")]
    assert list(Path().iterdir()) == [] and "SPECTRAIN_FAILED_JOBS" not in os.environ


def test_without_submitit_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "spectrain\[slurm\]"'):
        sweep.begin(["-m", "hydra/launcher=slurm"])


@pytest.mark.parametrize("folder", ["runs/sweep", "'runs/my sweep'"])
def test_jobs_that_would_share_a_run_are_refused(folder: str) -> None:
    words = ["-m", "seed=0,1", "resume=true", f"paths.run_dir={folder}"]
    with pytest.raises(InputError, match=r"all jobs of this sweep would go on .*\$\{hydra:job.num\}"):
        sweep.begin(words)
    with pytest.raises(InputError, match="all jobs of this sweep"):
        sweep.begin([*words[:2], "++resume=True", f"+{words[3]}"])
    sweep.begin(words[1:])
    for own in ("runs/${hydra:job.num}", "a,b", "runs/${seed}"):
        sweep.begin([*words[:3], f"paths.run_dir={own}"])


def test_a_job_by_itself_is_not_counted() -> None:
    cfg = OmegaConf.create({"paths": {"run_dir": "runs/sweep/1"}, "seed": 3})
    words = ["seed=3", r"paths.run_dir=runs/sweep/$\{hydra\:job.num\}", "~logger"]
    assert sweep.alone(words, cfg) == ["seed=3", "paths.run_dir=runs/sweep/1", "~logger"]
    words[1] = "++" + words[1]
    assert sweep.alone(words, cfg) == ["seed=3", "++paths.run_dir=runs/sweep/1", "~logger"]
