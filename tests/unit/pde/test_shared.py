"""A kernel whose rows are shared over ranks, and a gradient whose points are: as of one process."""

from pathlib import Path

import pytest
import torch

from processes import run_ranks
from spectrain import InputError
from spectrain.preconditioners import ranks

from .steps_for_shared import SIZES, make, residuals, steps

WORKER = """
from steps_for_shared import SIZES, make, residuals, steps
dist.init_process_group("gloo")
world = dist.get_world_size()
lin = residuals(make(*SIZES[0]), 0, shared=True).linearize()
leave({"weights": [steps(*size, world) for size in SIZES], "gram": lin.gram(), "normal": lin.normal()})
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
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


@pytest.mark.parametrize("world", [2, 3])
def test_the_parts_of_the_ranks_add_up(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without processes: every entry on and above the diagonal is computed by one rank."""
    whole = residuals(make(*SIZES[0]), 0, shared=False).linearize()
    K, A = whole.gram(), whole.normal()
    lin = residuals(make(*SIZES[0]), 0, shared=True).linearize()
    parts: list[torch.Tensor] = []
    monkeypatch.setattr(ranks, "count", lambda _: world)
    monkeypatch.setattr(ranks, "together", lambda compute, _: compute())
    monkeypatch.setattr(ranks, "total", lambda values, _: parts.append(values.clone()) or values)
    for rank in range(world):
        monkeypatch.setattr(ranks, "my_rank", lambda _, rank=rank: rank)
        lin.gram()
        lin.normal()
    torch.testing.assert_close(torch.stack(parts[::2]).sum(0).triu(), K.triu(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(torch.stack(parts[1::2]).sum(0), A, rtol=1e-12, atol=1e-14)
    work = [float((part.triu() != 0).sum()) for part in parts[::2]]
    assert max(work) < 1.2 * min(work)


def test_shares_of_the_points_add_up_to_the_loss() -> None:
    made = residuals(make(*SIZES[0]), 0, shared=False)
    parts = [made.share(rank, 3).loss().detach() for rank in range(3)]
    assert float(sum(parts)) == pytest.approx(float(made.loss().detach()), rel=1e-12)


def test_rows_of_a_share_are_its_residuals() -> None:
    """Kovasznay's flow: three conditions, of three, two and one components."""
    made = residuals(make(*SIZES[0]), 0, shared=False)
    whole, rows = made().detach(), [made.rows_of(rank, 3) for rank in range(3)]
    for rank, mine in enumerate(rows):
        torch.testing.assert_close(whole[mine], made.share(rank, 3)().detach(), rtol=1e-12, atol=1e-14)
    assert torch.equal(torch.cat(rows).sort().values, torch.arange(len(whole)))


def test_more_ranks_than_points_are_refused() -> None:
    made = residuals(make(*SIZES[0]), 0, shared=False)
    with pytest.raises(InputError, match="points for 1000 processes"):
        made.share(0, 1000)
