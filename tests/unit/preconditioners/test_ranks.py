"""The batch shared over ranks in uneven parts has the gradient of one process, and every rank the same basis."""

from pathlib import Path
from typing import Any

import pytest
import torch
from steps_for_ranks import CASES, gradients, sharded

from processes import run_ranks

WORKER = """
import warnings
from spectrain import BatchPreconditioner, spectral_maps
from steps_for_ranks import CASES, gradients, sharded
from spectrain.errors import InputError
from spectrain.preconditioners import ranks
dist.init_process_group("gloo")
results = {case: gradients(*case, (rank, dist.get_world_size())) for case in CASES}
results["sharded"] = sharded((rank, dist.get_world_size()))
results["resumed"] = sharded((rank, dist.get_world_size()), torch.load(f"{folder}/one.pt", weights_only=True))

def fails_on_the_last_rank():
    if rank == dist.get_world_size() - 1:
        raise RuntimeError("no memory")

try:
    ranks.together(fails_on_the_last_rank, True)
except (InputError, RuntimeError) as found:
    results["failed"] = str(found)
S = BatchPreconditioner(spectral_maps.power(0.5))
with warnings.catch_warnings(record=True):
    warnings.simplefilter("always")
    S._attempt(fails_on_the_last_rank, True)
results["skipped"] = S.skipped_steps
rows = torch.arange(10.0).view(5, 2)[: 3 if rank == 0 else 2] + 100 * rank  # 3 of one, 2 of the others
whole, mine = ranks.interleaved(rows, True)
results["interleaved"] = whole[:, 0].tolist(), torch.equal(whole[mine], rows)
leave(results)
dist.destroy_process_group()
"""


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_shared_batches(tmp_path: Path, world: int) -> None:
    here = Path(__file__).parent
    alone = sharded((0, 1))
    torch.save(alone["saved"], tmp_path / "one.pt")
    results = run_ranks(WORKER, world, tmp_path, here)
    for case in CASES:
        expected, _ = gradients(*case, (0, 1))
        for result in results:
            found, basis = result[case]
            tolerance = 1e-9 if case[0] != "bfloat16" else 1e-2
            for one, two in zip(found, expected, strict=True):
                assert float((one - two).norm() / two.norm()) < tolerance, case
            assert all(torch.equal(a, b) for a, b in zip(basis, results[0][case][1], strict=True)), case
    check_shards(alone, results)
    assert [result["skipped"] for result in results] == [1] * world
    order = [100.0 * rank + 2 * row for row in range(2) for rank in range(world)] + [4.0]
    assert [result["interleaved"] for result in results] == [(order, True)] * world
    messages = [result["failed"] for result in results]
    assert messages == ["It failed on 1 other rank(s); see their messages."] * (world - 1) + ["no memory"]


def check_shards(one: dict[str, Any], results: list[dict[Any, Any]]) -> None:
    """Each rank holds its part of U, all step as one process does, and either can go on from the other's state."""
    parts = [result["sharded"]["numbers"] for result in results]
    assert sum(parts) == one["numbers"]
    modes = one["numbers"] // sum(weights.numel() for weights in one["weights"])
    assert max(parts) == modes * sum(-(-weights.numel() // len(results)) for weights in one["weights"])
    for result in results:
        assert "consolidate_state_dict() on all of them" in result["sharded"]["error"]
        for found in (result["sharded"], result["resumed"]):
            for a, b, first in zip(found["weights"], one["weights"], results[0]["sharded"]["weights"], strict=True):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
                assert found is result["resumed"] or torch.equal(a, first)
    saved = results[0]["sharded"]["saved"]
    for a, b in zip(saved["modified_spectrum"]["blocks"], one["saved"]["modified_spectrum"]["blocks"], strict=True):
        assert a.shape == b.shape
    again = sharded((0, 1), saved)
    for a, b in zip(again["weights"], one["weights"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
