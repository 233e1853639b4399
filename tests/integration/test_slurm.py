"""scripts/slurm/train.sbatch on a real SLURM: however a job is stopped, it ends as one that was not."""

import csv
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from program import TINY, load
from slurm_cluster import Cluster, reason_to_skip
from test_resume import assert_equal

REASON = reason_to_skip()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

ROOT = Path(__file__).parents[2]
LAST = "checkpoints/last.ckpt"
WORDS = (
    *TINY,
    "trainer.max_steps=150",
    "trainer.val_check_interval=10",
    "trainer.log_every_n_steps=10",
    "data.batch_size=51",
    "logger=wandb",
)
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1")
FOUR_TASKS = ("--nodes=2", "--ntasks-per-node=2")
# Presumably as DDP lays its buckets anew after a process's first step, and a sum over four then rounds differently:
# what four ranks compute after a restart is the same to rounding, which SOAP makes visible and this does not.
SMOOTH = ("optimizer=sgd", "optimizer.lr=0.02", "trainer.precision=64-true")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("slurm") / "c")
    cluster.environment |= {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT / "src")}
    with cluster:
        yield cluster


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder from which all jobs are submitted."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "scripts").symlink_to(ROOT / "scripts")
    return folder


@pytest.fixture(scope="module")
def whole(cluster: Cluster, work: Path) -> dict[tuple[str, ...], Path]:
    """An uninterrupted run for each layout."""
    runs = {}
    for layout in (TWO_NODES, FOUR_TASKS):
        job = submit(cluster, work, *layout, words=words_of(layout))
        assert cluster.wait(job)["JobState"] == "COMPLETED", output(work, job)
        runs[layout] = work / "runs" / f"job-{job}"
    return runs


def words_of(layout: tuple[str, ...]) -> tuple[str, ...]:
    return ("trainer=ddp", *WORDS, *(SMOOTH if layout == FOUR_TASKS else ()))


def submit(cluster: Cluster, work: Path, *layout: str, words: tuple[str, ...] = ("trainer=ddp", *WORDS)) -> str:
    command = ("sbatch", "--parsable", *layout, "scripts/slurm/train.sbatch")
    return cluster.run(*command, *words, cwd=work).strip()


def output(work: Path, job: str) -> str:
    return (work / f"slurm-spectrain-{job}.out").read_text()


def kill_rank(rank: int, job: str) -> None:
    """-9 for the Python process of one rank."""
    words = f"train.py paths.run_dir=runs/job-{job} "
    for number in subprocess.run(["pgrep", "-f", words], capture_output=True, text=True).stdout.split():
        inside = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
        is_python = b"python" in Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")[0]
        if is_python and f"SLURM_PROCID={rank}".encode() in inside and b"SLURM_STEP_ID=0" in inside:
            os.kill(int(number), signal.SIGKILL)
            return
    raise AssertionError(f"rank {rank} was not found")


def stop(cluster: Cluster, work: Path, job: str, way: str) -> None:
    if way == "signal":
        cluster.run("scancel", "--signal=USR1", job)
    elif way == "requeue":
        cluster.run("scontrol", "requeue", job)
    elif way == "preemption":  # by a job of a partition that comes first
        urgent = ("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--wrap=sleep 1")
        cluster.wait(cluster.run(*urgent, cwd=work).strip())
    elif way in ("node down", "node lost"):
        if way == "node lost":
            cluster.lose("n2")
        else:
            cluster.run("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
        cluster.wait_until(lambda: cluster.job(job)["Restarts"] == "1", 60)
        cluster.bring_back("n2")
    else:
        kill_rank(int(way.removeprefix("kill -9 of rank ")), job)


def column(path: Path, name: str) -> list[tuple[str, str]]:
    with path.open() as file:
        return [(row["step"], row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.mark.parametrize(
    ("way", "layout"),
    [
        ("signal", TWO_NODES),
        ("requeue", TWO_NODES),
        ("preemption", TWO_NODES),
        ("kill -9 of rank 0", TWO_NODES),
        ("kill -9 of rank 1", TWO_NODES),
        ("node down", TWO_NODES),
        ("node lost", TWO_NODES),
        ("signal", FOUR_TASKS),
        ("kill -9 of rank 2", FOUR_TASKS),
    ],
)
def test_a_stopped_job_ends_as_one_that_was_not(
    cluster: Cluster, work: Path, whole: dict[tuple[str, ...], Path], way: str, layout: tuple[str, ...]
) -> None:
    job = submit(cluster, work, *layout, words=words_of(layout))
    run = work / "runs" / f"job-{job}"
    cluster.wait_until((run / LAST).exists, 120)
    stop(cluster, work, job, way)
    ended = cluster.wait(job)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), output(work, job)
    expected = whole[layout]
    one, other = load(expected / LAST), load(run / LAST)
    assert one["global_step"] == other["global_step"] == 150
    logged, whole_run = (dict(column(place / "metrics.csv", "train/loss")) for place in (run, expected))
    assert len(whole_run) == 15 and whole_run.keys() <= logged.keys()
    if layout == TWO_NODES:
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "preconditioner"):
            assert_equal(one[key], other[key], key)
        assert whole_run.items() <= logged.items()
    else:
        torch.testing.assert_close(one["state_dict"], other["state_dict"], rtol=1e-9, atol=1e-12)
        for step, loss in whole_run.items():
            assert float(logged[step]) == pytest.approx(float(loss), rel=1e-9)
    assert {path.name for path in (work / "runs").glob(f"job-{job}*")} == {run.name}
    run_id = (run / "wandb_id.txt").read_text().strip()
    parts = [path.name for path in (run / "wandb").glob("offline-run-*")]
    assert len(parts) == 2 and all(run_id in part for part in parts)


def test_a_cancelled_job_stays_cancelled(cluster: Cluster, work: Path) -> None:
    job = submit(cluster, work, *TWO_NODES)
    cluster.wait_until((work / "runs" / f"job-{job}" / LAST).exists, 120)
    cluster.run("scancel", job)
    assert cluster.wait(job)["JobState"] == "CANCELLED"
    assert cluster.job(job)["Restarts"] == "0"


def test_a_mistake_is_not_started_again(cluster: Cluster, work: Path) -> None:
    job = submit(cluster, work, words=("model.wdith=3",))
    ended = cluster.wait(job)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "2:0", "0")
    assert "Did you mean model.width?" in output(work, job)


def test_an_array_is_a_run_for_each_number(cluster: Cluster, work: Path) -> None:
    job = submit(cluster, work, "--array=3-4", words=(*TINY, "seed=%a"))
    for number in (3, 4):
        assert cluster.wait(f"{job}_{number}")["JobState"] == "COMPLETED"
        assert load(work / "runs" / f"job-{job}_{number}" / LAST)["config"].startswith(f"seed: {number}\n")


@pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None,
    reason='no submitit here: pip install "spectrain[slurm]"',
)
def test_a_sweep_by_submitit_lists_its_failed_jobs(cluster: Cluster, work: Path) -> None:
    words = (*TINY, "resume=true", "paths.run_dir=runs/sweep/${hydra:job.num}", "model.activation=relu,tanh,wrong")
    command = [sys.executable, "scripts/train.py", "-m", "hydra/launcher=slurm", *words]
    done = subprocess.run(command, cwd=work, env=cluster.environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "1 of the sweep's jobs failed; each can be repeated alone:" in done.stderr
    assert "model.activation=wrong" in done.stderr.splitlines()[-1]
    assert [(work / "runs/sweep" / name / LAST).exists() for name in "012"] == [True, True, False]
    assert not list(work.glob(".failed-jobs-*"))


@pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None,
    reason='no submitit here: pip install "spectrain[slurm]"',
)
def test_a_sweep_by_submitit_of_jobs_of_several_ranks(
    cluster: Cluster, work: Path, whole: dict[tuple[str, ...], Path]
) -> None:
    """Two nodes of one task each: one run for each job, with the losses of a job of train.sbatch."""
    layout = ("hydra.launcher.nodes=2", "trainer.num_nodes=2", "trainer.devices=1")
    words = (*words_of(TWO_NODES), "resume=true", "paths.run_dir=runs/ranks/${hydra:job.num}", "optimizer.lr=1e-2,2e-2")
    command = [sys.executable, "scripts/train.py", "-m", "hydra/launcher=slurm", *layout, *words]
    done = subprocess.run(command, cwd=work, env=cluster.environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = dict(column(whole[TWO_NODES] / "metrics.csv", "train/loss"))
    for number, same in (("0", True), ("1", False)):
        run = work / "runs/ranks" / number
        assert (dict(column(run / "metrics.csv", "train/loss")) == expected) == same
        assert len(list((run / "wandb").glob("offline-run-*"))) == 1
