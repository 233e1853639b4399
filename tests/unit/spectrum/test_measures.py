"""Measures against their definitions."""

import math

import pytest
import torch

from spectrain.errors import InputError
from spectrain.spectral_maps import flatten, raise_head
from spectrain.spectrum import Spectrum
from spectrain.spectrum.decay_law import decay_law
from spectrain.spectrum.drift import drift
from spectrain.spectrum.frequencies import energy_per_frequency, energy_per_radius
from spectrain.spectrum.measures import (
    condition_number,
    default_bands,
    effective_rank,
    energy_per_band,
    energy_per_mode,
    kernel_target_alignment,
    participation_ratio,
)


def spectrum(values: list[float], n: int = 6) -> Spectrum:
    K = torch.diag(n * torch.tensor(values + [0.0] * (n - len(values)), dtype=torch.float64))
    return Spectrum.from_kernel(K, len(values))


def test_condition_number_stops_at_the_last_resolved_mode() -> None:
    assert condition_number(spectrum([4.0, 2.0, 1.0])) == pytest.approx(4)
    assert condition_number(spectrum([4.0, 2.0, 1e-20])) == pytest.approx(2)
    assert math.isnan(condition_number(Spectrum.from_kernel(torch.zeros(3, 3))))


def test_condition_number_after_a_map() -> None:
    assert condition_number(spectrum([4.0, 2.0, 1.0]), flatten(1)) == pytest.approx(2)
    assert condition_number(spectrum([4.0, 2.0, 1.0]), flatten()) == pytest.approx(1)
    assert condition_number(spectrum([4.0, 2.0, 1.0]), raise_head(1.0)) == pytest.approx(16)


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


def test_ranks_of_flat_and_of_uneven_spectra() -> None:
    flat = spectrum([2.0, 2.0, 2.0, 2.0])
    assert effective_rank(flat) == pytest.approx(4)
    assert participation_ratio(flat) == pytest.approx(4)
    uneven = spectrum([3.0, 1.0])
    assert participation_ratio(uneven) == pytest.approx(16 / 10)
    assert effective_rank(uneven) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
    with pytest.raises(InputError, match="zero"):
        effective_rank(Spectrum.from_kernel(torch.zeros(3, 3)))


def test_alignment() -> None:
    y = torch.tensor([1.0, -1.0, 2.0, 0.0], dtype=torch.float64)
    assert kernel_target_alignment(torch.outer(y, y), y) == pytest.approx(1)
    assert kernel_target_alignment(torch.outer(y, y), torch.tensor([1.0, 1.0, 0.0, 5.0])) == pytest.approx(0)
    assert kernel_target_alignment(torch.eye(4, dtype=torch.float64), y) == pytest.approx(0.5)
    # A constant hides everything, unless it is taken out.
    hidden = torch.outer(y - y.mean(), y - y.mean()) + 100
    assert kernel_target_alignment(hidden, y) < 0.2
    assert kernel_target_alignment(hidden, y, centred=True) == pytest.approx(1)
    both = torch.stack([y, 2 * y], 1)
    assert kernel_target_alignment(torch.outer(y, y), both) == pytest.approx(1)
    assert math.isnan(kernel_target_alignment(torch.outer(y, y), torch.ones(4), centred=True))
    with pytest.raises(InputError, match="y has shape"):
        kernel_target_alignment(torch.eye(4), y[:3])


def test_decay_law_finds_the_exponent_and_its_interval_holds_it() -> None:
    i = torch.arange(1, 301, dtype=torch.float64)
    clean = decay_law(Spectrum.from_kernel(torch.diag(300 * 5 * i**-1.7)))
    assert clean.exponent == pytest.approx(1.7, abs=0.01)
    assert clean.scale == pytest.approx(5, rel=0.05)
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(50):
        scatter = torch.exp(0.3 * torch.randn(300, generator=generator, dtype=torch.float64))
        values = (i**-2.0 * scatter).sort(descending=True).values
        law = decay_law(Spectrum(values, torch.eye(300, dtype=torch.float64), torch.zeros_like(values), 0.0))
        assert 0.02 < law.high - law.low < 0.5
        held += law.low < 2 < law.high
    assert held >= 40
    broken = Spectrum.from_kernel(torch.diag(300 * torch.where(i < 20, i**-1.0, 20.0**2 * i**-3.0)))
    assert decay_law(broken, last=19).exponent == pytest.approx(1, abs=0.02)
    assert decay_law(broken, first=40).exponent == pytest.approx(3, abs=0.02)
    for arguments in ((0, None), (200, None), (1, 2)):
        with pytest.raises(InputError):
            decay_law(broken, *arguments)


@pytest.mark.parametrize("n", [64, 65])
def test_frequencies_on_the_circle(n: int) -> None:
    t = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    r = torch.stack([3 + 2 * torch.cos(5 * t), torch.sin(9 * t + 0.3)], 1)
    energy = energy_per_frequency(r)
    expected = torch.zeros(n // 2 + 1, dtype=torch.float64)
    expected[0], expected[5], expected[9] = 9, 2, 0.5
    torch.testing.assert_close(energy, expected, rtol=0, atol=1e-12)
    noise = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for domain in ("circle", "line"):
        total = energy_per_frequency(noise, domain=domain).sum()  # type: ignore[arg-type]
        assert float(total) == pytest.approx(float(noise.square().mean()))


def test_frequencies_on_the_line_and_on_a_grid() -> None:
    i, j = torch.arange(12, dtype=torch.float64) + 0.5, torch.arange(9, dtype=torch.float64) + 0.5
    wave = torch.cos(math.pi * 3 * i / 12)
    energy = energy_per_frequency(wave, domain="line")
    assert float(energy[3]) == pytest.approx(0.5)
    assert float(energy.sum()) == pytest.approx(0.5)
    image = wave[:, None] * torch.cos(math.pi * 4 * j / 9) + 2
    rings = energy_per_radius(image.reshape(-1), (12, 9))
    assert float(rings[5]) == pytest.approx(0.25)
    assert float(rings[0]) == pytest.approx(4)
    assert float(rings.sum()) == pytest.approx(4.25)
    with pytest.raises(InputError, match="grid"):
        energy_per_radius(wave, (12, 9))
    with pytest.raises(InputError, match="domain"):
        energy_per_frequency(wave, domain="disc")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="residual"):
        energy_per_frequency(torch.zeros(1))


def test_drift_is_the_angle_of_a_rotation() -> None:
    old = spectrum([4.0, 2.0, 1.0])
    for angle in (1e-9, 0.3, math.pi / 2):
        R = torch.eye(6, dtype=torch.float64)
        R[1, 1] = R[4, 4] = math.cos(angle)
        R[4, 1], R[1, 4] = math.sin(angle), -math.sin(angle)
        new = Spectrum(1.5 * old.eigenvalues, R @ old.eigenvectors, old.residual_norms, old.noise_floor)
        d = drift(old, new)
        torch.testing.assert_close(d.angles, torch.tensor([0, 0, angle], dtype=torch.float64), rtol=1e-6, atol=1e-15)
        torch.testing.assert_close(d.eigenvalues, torch.full((3,), 0.5, dtype=torch.float64))
        assert d.subspace == pytest.approx(math.sin(angle) / 3**0.5)
        assert drift(old, new, rank=1).subspace == pytest.approx(0, abs=1e-12)
    with pytest.raises(InputError, match="rank=4"):
        drift(old, old, rank=4)
    with pytest.raises(InputError, match="points"):
        drift(old, spectrum([4.0, 2.0], n=7))
