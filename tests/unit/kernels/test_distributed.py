"""One, two and four ranks (gloo) agree, also with sizes that do not divide."""

import os
import pickle
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrain.kernels import empirical_ntk, rank_rows
from spectrain.kernels.staircase import steps

from .oracle import relative_error
from .zoo import build

WORKER = """
import pickle, sys
import torch
import torch.distributed as dist
torch.set_num_threads(1)
from spectrain.errors import InputError
from spectrain.kernels import empirical_ntk, shared_ntk
sys.path.insert(0, sys.argv[1])
from tests.unit.kernels.zoo import build

dist.init_process_group("gloo")
group, results = dist.group.WORLD, {}
for name, n, m in (("mlp", 9, None), ("vision transformer", 5, None), ("tokens", 3, 7), ("mlp", 2, None)):
    module, x, _ = build(name, n=n)
    z = None if m is None else build(name, n=m, seed=1)[1]
    if m is None:
        K = shared_ntk(module, x, group)
        results[name, n] = K @ torch.eye(n, dtype=torch.float64), K.diagonal(), K.block.numel()
    for outputs in ("trace", "full"):
        for gather in (True, False):
            K = empirical_ntk(module, x, z, outputs=outputs, process_group=group, gather=gather)
            results[name, n, outputs, gather] = K
module, x, _ = build("mlp", n=9)
results["shares"] = empirical_ntk(module, x, process_group=group, per_parameter=True)
ddp = torch.nn.parallel.DistributedDataParallel(module)
results["ddp"] = empirical_ntk(ddp, x)
x[8] = float("nan")
try:
    empirical_ntk(module, x, process_group=group)
    results["error"] = "none"
except InputError as error:
    results["error"] = str(error)
with open(f"{sys.argv[2]}/{dist.get_rank()}", "wb") as file:
    pickle.dump(results, file)
dist.destroy_process_group()
"""


def run(ranks: int, folder: Path) -> list[dict[object, object]]:
    root = Path(__file__).parents[3]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", WORKER, str(root), str(folder)]
    processes = [subprocess.Popen(command, env={**common, "RANK": str(rank)}, cwd=root) for rank in range(ranks)]
    assert [process.wait(timeout=120) for process in processes] == [0] * ranks
    return [pickle.loads((folder / str(rank)).read_bytes()) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_agree_with_one_process(ranks: int, tmp_path: Path) -> None:
    results = run(ranks, tmp_path)
    for name, n, m in (("mlp", 9, None), ("vision transformer", 5, None), ("tokens", 3, 7), ("mlp", 2, None)):
        module, x, _ = build(name, n=n)
        z = None if m is None else build(name, n=m, seed=1)[1]
        if m is None:
            want = empirical_ntk(module, x)
            for result in results:
                assert relative_error(result[name, n][0], want) < 1e-12
                assert relative_error(result[name, n][1], want.diagonal()) < 1e-12
                assert torch.equal(result[name, n][0], results[0][name, n][0])
            assert sum(result[name, n][2] for result in results) <= n * (n + 1 + n / 2) / 2 + n or ranks == 1
        for outputs in ("trace", "full"):
            want = empirical_ntk(module, x, z, outputs=outputs)
            for rank, result in enumerate(results):
                assert relative_error(result[name, n, outputs, True], want) < 1e-12
                rows = rank_rows(n, rank, ranks)
                got = result[name, n, outputs, False]
                assert got.shape == want[rows].shape
                assert torch.allclose(got, want[rows], rtol=0, atol=1e-12 * float(want.abs().max()))
    module, x, _ = build("mlp", n=9)
    for result in results:
        assert relative_error(sum(result["shares"].values()), empirical_ntk(module, x)) < 1e-12
        assert relative_error(result["ddp"], empirical_ntk(module, x)) < 1e-12
        assert "not finite" in result["error"] or "other rank" in result["error"]


@settings(max_examples=50)
@given(n=st.integers(256, 3000), ranks=st.integers(1, 16), point=st.floats(0, 100))
def test_the_steps_of_the_staircase_give_all_ranks_the_same_work(n: int, ranks: int, point: float) -> None:
    s = steps(n, ranks, point, 1.0)
    assert len(s) == ranks + 1 and s[0] == 0 and s[-1] == n and s == sorted(s)
    work = [point * (n - a) + (b - a) * (n - a) - (b - a) ** 2 / 2 for a, b in pairwise(s) if b > a]
    assert max(work) - min(work) <= 2 * n + point  # a row more or less
    few = steps(3, 8, point, 1.0)  # some ranks have nothing
    assert len(few) == 9 and few[0] == 0 and few[-1] == 3 and few == sorted(few)
