"""The table of modes against a descent that is really run."""

import math

import pytest
import torch

from spectrain.errors import InputError
from spectrain.spectral_maps import power
from spectrain.spectrum import Spectrum
from spectrain.spectrum.mode_table import mode_energies, mode_table

N = 12
J = torch.randn(N, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.linspace(1, 0.1, 40)
SPECTRUM = Spectrum.from_kernel(J @ J.T)
R = torch.randn(N, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_energies_of_all_modes_add_up_to_the_mean_square() -> None:
    energy = mode_energies(SPECTRUM, R)
    assert float(energy.sum()) == pytest.approx(float(R.square().sum() / N))
    v = SPECTRUM.eigenvectors[:, 3]
    assert float(energy[3]) == pytest.approx(float(((v @ R) ** 2).sum() / N))
    assert mode_energies(SPECTRUM, R[:, 0]).shape == (N,)


@pytest.mark.parametrize("g", [None, power(0.5, 6)])
def test_predicted_steps_are_those_of_gradient_descent(g: object) -> None:
    table = mode_table(SPECTRUM, g, mode_energies(SPECTRUM, R))  # type: ignore[arg-type]
    mapped = torch.tensor(table["mapped_eigenvalue"], dtype=torch.float64)
    left = torch.ones(N, dtype=torch.float64)
    taken = torch.full((N,), math.inf, dtype=torch.float64)
    for step in range(1, 2000):
        left = left * (1 - mapped / mapped.max())
        taken = torch.where((left.abs() <= 0.05) & taken.isinf(), float(step), taken)
    assert table["predicted_steps"] == taken.tolist()
    assert table["mode"] == list(range(1, N + 1))
    assert (table["predicted_steps"] == table["predicted_steps_without"]) == (g is None)


def test_energies_that_were_not_measured_are_nan_and_a_wrong_number_of_them_is_refused() -> None:
    assert all(math.isnan(value) for value in mode_table(SPECTRUM, None)["energy"])
    with pytest.raises(InputError, match="12 modes"):
        mode_table(SPECTRUM, None, torch.ones(3))
