"""The metric against the function that it computes by chunks."""

import pytest
import torch

from spectrain.errors import InputError
from spectrain.metrics import BandEnergy
from spectrain.regression.callables import rbf
from spectrain.spectrum import Spectrum
from spectrain.spectrum.measures import energy_per_band

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(30, 2, generator=GENERATOR, dtype=torch.float64)
R = torch.randn(30, 3, generator=GENERATOR, dtype=torch.float64)
SPECTRUM = Spectrum.from_kernel(rbf(X, X), 12)


@pytest.mark.parametrize("edges", [None, [0, 3, 12], [1, 4]])
def test_chunks_in_any_order_give_the_energies_of_the_whole(edges: list[int] | None) -> None:
    metric = BandEnergy(SPECTRUM, outputs=3, edges=edges)
    for index in torch.randperm(30, generator=GENERATOR).split(7):
        metric.update(R[index], index)
    values = torch.stack(list(metric.compute().values()))
    torch.testing.assert_close(values, energy_per_band(SPECTRUM, R, edges))
    assert list(metric.compute()) == [f"band_{j}" for j in range(len(values))]


def test_two_ranks_together_hold_what_one_would() -> None:
    """What Torchmetrics does on several ranks: the states are summed."""
    ranks = [BandEnergy(SPECTRUM, outputs=3) for _ in range(2)]
    for metric, index in zip(ranks, torch.arange(30).split(15), strict=True):
        metric.update(R[index], index)
    for name in ("projected", "squares", "points"):
        setattr(ranks[0], name, getattr(ranks[0], name) + getattr(ranks[1], name))
    values = torch.stack(list(ranks[0].compute().values()))
    torch.testing.assert_close(values, energy_per_band(SPECTRUM, R))


def test_reset_forgets_and_missing_points_are_said() -> None:
    metric = BandEnergy(SPECTRUM, outputs=3)
    metric.update(R[:20], torch.arange(20))
    with pytest.raises(InputError, match="given 20 points; its spectrum has 30"):
        metric.compute()
    metric.reset()
    metric.update(R, torch.arange(30))
    assert float(sum(metric.compute().values())) == pytest.approx(float(R.square().sum() / 30))
