"""A kernel whose rows are shared over ranks, and a gradient whose points are: as of one process."""

from pathlib import Path

import pytest
import torch

from processes import run_ranks

from .steps_for_shared import SIZES, make, residuals, steps

WORKER = """
from steps_for_shared import SIZES, make, residuals, steps
dist.init_process_group("gloo")
world = dist.get_world_size()
lin = residuals(make(*SIZES[0]), 0, shared=True).linearize()
leave({"weights": [steps(*size, world) for size in SIZES], "gram": lin.gram(), "normal": lin.normal()})
dist.destroy_process_group()
"""


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_take_the_steps_of_one_process(tmp_path: Path, world: int) -> None:
    results = run_ranks(WORKER, world, tmp_path, Path(__file__).parent)
    lin = residuals(make(*SIZES[0]), 0, shared=False).linearize()
    for result in results:
        torch.testing.assert_close(result["gram"], lin.gram(), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(result["normal"], lin.normal(), rtol=1e-12, atol=1e-14)
    for place, size in enumerate(SIZES):
        expected = steps(*size, 1)
        for result in results:
            found = result["weights"][place]
            assert float((found - expected).norm() / expected.norm()) < 1e-8
            assert torch.equal(found, results[0]["weights"][place])


def test_shares_of_the_points_add_up_to_the_loss() -> None:
    made = residuals(make(*SIZES[0]), 0, shared=False)
    parts = [made.share(rank, 3).loss().detach() for rank in range(3)]
    assert float(sum(parts)) == pytest.approx(float(made.loss().detach()), rel=1e-12)
