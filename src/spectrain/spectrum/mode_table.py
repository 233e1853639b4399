"""The modes of a run as a table: what each weighs, what the map makes of it, what is left in it, how long it takes.

Letters: n points, k modes. Eigenvalues are of K/n.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.spectrum.dynamics import largest_step_size, steps_to_tolerance
from spectrain.spectrum.spectrum import Spectrum


def mode_energies(spectrum: Spectrum, residual: Float[Tensor, "n *C"]) -> Float[Tensor, " k"]:
    """|v_i^T r|^2 / n for each mode, summed over outputs: what of the mean square of the residual lies in it."""
    projected = spectrum.eigenvectors.T @ residual.to(spectrum.eigenvectors).reshape(spectrum.n, -1)
    return projected.square().sum(1) / spectrum.n


def mode_table(
    spectrum: Spectrum, spectral_map: Callable[[Tensor], Tensor] | None, energy: Float[Tensor, " k"] | None = None
) -> dict[str, list[float]]:
    """One row per mode: mode (from 1), eigenvalue, mapped_eigenvalue g, energy, and the steps that theory predicts.

    predicted_steps = ceil(log 0.05 / log |1 - g_i / g_max|): steps of gradient descent at the step size 1 / g_max, half
    of the largest, until 5 % of the mode's residual is left; predicted_steps_without for g = lambda. What another
    optimizer takes is not predicted, but how the modes compare is. A mode below the noise floor never gets there (inf)
    or late. Energies that were not measured are nan.

    Raises:
        InputError: `energy` does not have one entry per mode.
    """
    k = spectrum.rank
    if energy is None:
        energy = torch.full((k,), torch.nan)
    if energy.shape != (k,):
        raise InputError(f"energy has shape {tuple(energy.shape)}; the spectrum has {k} modes.")
    ratio = torch.ones_like(spectrum.eigenvalues) if spectral_map is None else spectrum.ratio(spectral_map)
    columns = {
        "mode": torch.arange(1, k + 1),
        "eigenvalue": spectrum.eigenvalues,
        "mapped_eigenvalue": spectrum.eigenvalues * ratio,
        "energy": energy,
        "predicted_steps": _steps(spectrum, spectral_map),
        "predicted_steps_without": _steps(spectrum, None),
    }
    return {name: column.tolist() for name, column in columns.items()}


def _steps(spectrum: Spectrum, spectral_map: Callable[[Tensor], Tensor] | None) -> Float[Tensor, " k"]:
    return steps_to_tolerance(spectrum, spectral_map, largest_step_size(spectrum, spectral_map) / 2)
