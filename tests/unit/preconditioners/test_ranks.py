"""The batch shared over ranks in uneven parts has the gradient of one process, and every rank the same basis."""

from pathlib import Path

import pytest
import torch
from steps_for_ranks import CASES, gradients

from processes import run_ranks

WORKER = """
from steps_for_ranks import CASES, gradients
from spectrain.errors import InputError
from spectrain.preconditioners import ranks
dist.init_process_group("gloo")
results = {case: gradients(*case, (rank, dist.get_world_size())) for case in CASES}

def fails_on_the_last_rank():
    if rank == dist.get_world_size() - 1:
        raise RuntimeError("no memory")

try:
    ranks.together(fails_on_the_last_rank, True)
except (InputError, RuntimeError) as found:
    results["failed"] = str(found)
leave(results)
dist.destroy_process_group()
"""


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_shared_batches(tmp_path: Path, world: int) -> None:
    here = Path(__file__).parent
    results = run_ranks(WORKER, world, tmp_path, here)
    for case in CASES:
        expected, _ = gradients(*case, (0, 1))
        for result in results:
            found, basis = result[case]
            tolerance = 1e-9 if case[0] != "bfloat16" else 1e-2
            for one, two in zip(found, expected, strict=True):
                assert float((one - two).norm() / two.norm()) < tolerance, case
            assert all(torch.equal(a, b) for a, b in zip(basis, results[0][case][1], strict=True)), case
    messages = [result["failed"] for result in results]
    assert messages == ["It failed on 1 other rank(s); see their messages."] * (world - 1) + ["no memory"]
