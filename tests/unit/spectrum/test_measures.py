"""Measures against their definitions."""

import math

import pytest
import torch

from spectrain.errors import InputError
from spectrain.spectrum import Spectrum
from spectrain.spectrum.measures import condition_number, default_bands, energy_per_band, energy_per_mode


def spectrum(values: list[float], n: int = 6) -> Spectrum:
    K = torch.diag(n * torch.tensor(values + [0.0] * (n - len(values)), dtype=torch.float64))
    return Spectrum.from_kernel(K, len(values))


def test_condition_number_stops_at_the_last_resolved_mode() -> None:
    assert condition_number(spectrum([4.0, 2.0, 1.0])) == pytest.approx(4)
    assert condition_number(spectrum([4.0, 2.0, 1e-20])) == pytest.approx(2)
    assert math.isnan(condition_number(Spectrum.from_kernel(torch.zeros(3, 3))))


def test_energy_per_mode_is_the_mean_square_along_each_eigenvector() -> None:
    r = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 0.0], [5.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    energy = energy_per_mode(spectrum([4.0, 2.0, 1.0]), r)
    torch.testing.assert_close(energy, torch.tensor([5.0, 9.0, 0.0], dtype=torch.float64) / 6)


def test_bands_sum_to_the_mean_square_whatever_is_held() -> None:
    r = torch.arange(1.0, 7.0)
    for rank in (2, 3, 6):
        bands = energy_per_band(spectrum([4.0, 2.0, 1.0, 0.5, 0.3, 0.1][:rank]), r)
        assert float(bands.sum()) == pytest.approx(float(r.square().mean()))
    bands = energy_per_band(spectrum([4.0, 2.0, 1.0]), r, edges=[1, 3])
    torch.testing.assert_close(bands, torch.tensor([13.0, 78.0], dtype=torch.float64) / 6)


def test_default_bands_double() -> None:
    assert default_bands(1) == [0, 1]
    assert default_bands(10) == [0, 1, 2, 4, 8, 10]


def test_bad_residual_and_edges_are_refused() -> None:
    s = spectrum([4.0, 2.0, 1.0])
    with pytest.raises(InputError, match="residual has shape"):
        energy_per_mode(s, torch.zeros(5))
    for edges in ([0, 4], [2, 1], [-1, 2], [1, 1]):
        with pytest.raises(InputError, match="band edges"):
            energy_per_band(s, torch.zeros(6), edges=edges)
