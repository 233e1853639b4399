"""Several processes of torch.distributed (gloo) for a test: a worker's source, and what each rank leaves."""

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

PROLOGUE = """
import os, pickle, sys
import torch
import torch.distributed as dist
torch.set_num_threads(1)
folder, rank = sys.argv[1], int(os.environ["RANK"])
def leave(results):
    with open(f"{folder}/{rank}", "wb") as file:
        pickle.dump(results, file)
"""


def run_ranks(worker: str, ranks: int, folder: Path, *paths: Path) -> list[Any]:
    """What each rank left; `paths` can be imported from."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    search = os.pathsep.join([*map(str, paths), os.environ.get("PYTHONPATH", "")])
    common = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": search}
    command = [sys.executable, "-c", PROLOGUE + worker, str(folder)]
    processes = [
        subprocess.Popen(command, env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(ranks)
    ]
    try:
        codes = [process.wait(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0] * ranks
    return [pickle.loads((folder / str(rank)).read_bytes()) for rank in range(ranks)]
