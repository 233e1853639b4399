"""A SLURM of two nodes on this machine, for a test: its own munged, slurmctld and two slurmd, all in one folder."""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

NEEDED = ("sbatch", "srun", "scontrol", "munged", "slurmctld", "slurmd")
CORES = 4  # of each node, as SLURM is told: it counts tasks, and does not look how many there are

CONF = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=20
SchedulerParameters=sched_interval=1,bf_interval=1
NodeName=n1 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[1]} CPUs={cores} State=UNKNOWN
NodeName=n2 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[2]} CPUs={cores} State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES State=UP MaxTime=INFINITE PriorityTier=1 OverSubscribe=NO GraceTime=20
PartitionName=urgent Nodes=n1,n2 State=UP MaxTime=INFINITE PriorityTier=9 OverSubscribe=NO PreemptMode=OFF
"""


def reason_to_skip() -> str | None:
    """Why there can be no SLURM here, or None."""
    if missing := [name for name in NEEDED if shutil.which(name, path=_path()) is None]:
        return f"no SLURM here ({', '.join(missing)} not found): apt-get install slurm-wlm munge"
    return None if os.getuid() == 0 else "slurmd starts jobs as root only"


class Cluster:
    """Started by ``with``; `run` calls a program with the environment in which SLURM's commands find it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": _path(),
            "SLURM_CONF": str(folder / "slurm.conf"),
            "MASTER_ADDR": "127.0.0.1",  # n1 is no name of a host
            "OMP_NUM_THREADS": "1",
        }
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Cluster":
        try:
            self._start_daemons()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_daemons(self) -> None:
        munge = self.folder / "munge"
        for place in (munge, self.folder / "state", self.folder / "spool-n1", self.folder / "spool-n2"):
            place.mkdir(parents=True)
        (munge / "key").write_bytes(os.urandom(128))
        for place in (munge / "key", munge):
            place.chmod(0o700 if place.is_dir() else 0o400)
        conf = CONF.format(folder=self.folder, ports=_free_ports(3), host=socket.gethostname(), cores=CORES)
        (self.folder / "slurm.conf").write_text(conf)
        files = [f"--{name}={munge}/{name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
        self._start("munged", "--foreground", "--force", f"--key-file={munge}/key", *files)
        self.wait_until(lambda: (munge / "socket").exists())
        self._start("slurmctld", "-D", "-c")
        for node in ("n1", "n2"):
            self._start("slurmd", "-D", "-N", node)
        self.wait_until(lambda: self.run("sinfo", "-h", "-o", "%T", "-N", check=False).split() == ["idle"] * 4)

    def __exit__(self, *_: object) -> None:
        self.run("scancel", "--signal=KILL", "--full", "--user=root", check=False)
        with suppress(AssertionError):  # a job's own processes end only once the controller has heard of it
            self.wait_until(lambda: not self.run("squeue", "--noheader", check=False).strip(), 20)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def run(self, *command: str, check: bool = True, cwd: Path | None = None) -> str:
        """What it printed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, cwd=cwd, timeout=60)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def job(self, job: str) -> dict[str, str]:
        """What SLURM knows of a job."""
        words = self.run("scontrol", "-o", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job: str, seconds: float = 150) -> dict[str, str]:
        """The job once it has ended for good."""
        hurried = False
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")

        def has_ended() -> bool:
            nonlocal hurried
            now = self.job(job)
            if now["JobState"] == "PENDING" and now["Restarts"] != "0" and not hurried:
                # SLURM lets it wait for two minutes; at once it cannot ("credential revoked").
                hurried = True
                self.run("scontrol", "update", f"JobId={job}", "StartTime=now+4seconds")
            return now["JobState"] in over

        self.wait_until(has_ended, seconds)
        return self.job(job)

    def lose(self, node: str) -> None:
        """As if its power were cut: slurmd and all that it started end at once, and the controller learns of it."""
        conf, lost = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode(), set()
        for place in Path("/proc").glob("[0-9]*"):
            try:
                inside, words = ((place / name).read_bytes().split(b"\0") for name in ("environ", "cmdline"))
                parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
                above = Path("/proc", parent, "cmdline").read_bytes()
            except OSError:  # it has ended
                continue
            if conf in inside and f"SLURMD_NODENAME={node}".encode() in inside:
                lost |= {place.name, *([parent] if above.startswith(b"slurmstepd") else [])}
            if conf in inside and words[0] == b"slurmd" and node.encode() in words:
                lost.add(place.name)
        for number in lost:
            with suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def bring_back(self, node: str) -> None:
        """A node that was down, with a new slurmd where the old one has ended."""
        if [daemon.poll() for daemon in self._daemons if daemon.args[-1] == node][-1] is not None:  # type: ignore[index]
            self._start("slurmd", "-D", "-N", node)
        self.run("scontrol", "update", f"NodeName={node}", "State=RESUME")

    def _start(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("ab") as out:
            self._daemons.append(subprocess.Popen(command, env=self.environment, stdout=out, stderr=subprocess.STDOUT))

    def wait_until(self, condition: Any, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds} s; see the logs in {self.folder}"
            time.sleep(0.2)


def _path() -> str:
    return os.environ["PATH"] + ":/usr/sbin"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for probe in sockets:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in sockets]
    for probe in sockets:
        probe.close()
    return ports
