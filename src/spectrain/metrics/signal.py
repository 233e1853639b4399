"""How well a signal over a line is reproduced, as a whole and per frequency.

Shapes: n samples, C channels, F = n // 2 + 1 frequencies.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.metrics.base import FieldMetrics, Quality
from spectrain.spectrum.frequencies import energy_per_frequency

LEAST_SHARE = 1e-4  # of the signal's energy, in a band whose relative error means something


class SignalMetrics(FieldMetrics):
    """snr = 10 log10(|y|^2 / |f - y|^2) dB; and per band of frequencies the residual's amplitude over the signal's.

    error_fLO_HI = sqrt(E_band(f - y) / E_band(y)), E the energy of the discrete Fourier transform (the signal taken as
    periodic) at LO .. HI periods over its length; 1 before anything of a band is learned. `edges`: bands are
    edges[j] .. edges[j + 1] - 1, and those that hold less than a ten-thousandth of the energy, the mean's not counted,
    are left out.

    `target` [n, C]; `compute()` -> {"snr", "mse", "error_f1", "error_f2_3", ...}.
    """

    quality = Quality("snr", "SNR", "dB")
    directions: ClassVar[Mapping[str, bool]] = {"snr": True, "mse": False}

    def __init__(self, target: Float[Tensor, "n C"], bands: Sequence[tuple[int, int]]) -> None:
        super().__init__(target)
        energy = energy_per_frequency(target)
        whole = float(energy[1:].sum())  # the mean counts as none
        self.bands = [(a, b) for a, b in bands if float(energy[a : b + 1].sum()) > LEAST_SHARE * whole]

    def residual_energy(self) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"]]:
        """Energy per frequency of the signal and of the residual."""
        return energy_per_frequency(self.target), energy_per_frequency(self.measured() - self.target)

    def compute(self) -> dict[str, Tensor]:
        """Return SNR, MSE and the bands' errors."""
        signal, residual = self.residual_energy()
        mse = (self.measured() - self.target).square().mean()
        errors = {band_name(a, b): (residual[a : b + 1].sum() / signal[a : b + 1].sum()).sqrt() for a, b in self.bands}
        return {"snr": 10 * torch.log10(self.target.square().mean() / mse), "mse": mse, **errors}

    def lines(self, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
        """SNR, and the error at the highest frequency that the signal has."""
        if not self.bands:
            return super().lines(summary)
        a, b = self.bands[-1]
        where = f"{a}" if a == b else f"{a}-{b}"
        text = f"{100 * summary[band_name(a, b)]:.1f} % at {where} periods"
        base = summary.get(f"baseline_{band_name(a, b)}")
        return [*super().lines(summary), ("error", text if base is None else f"{text} ({100 * base:.1f} % without)")]


def band_name(first: int, last: int) -> str:
    """error_f8, or error_f8_15: a column of a history."""
    return f"error_f{first}" if first == last else f"error_f{first}_{last}"
