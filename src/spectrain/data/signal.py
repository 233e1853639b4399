"""A signal over time as a regression problem: places in [-1, 1] -> values in [-1, 1].

Shapes: n samples, C channels, d = 1.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from scipy.io import wavfile
from torch import Tensor

from spectrain import plots
from spectrain.data.field import Columns, FieldDataModule, Figures, stacked, whole_number
from spectrain.data.files import locate_file, read_sheet
from spectrain.errors import InputError, SpectrainWarning
from spectrain.metrics import FieldMetrics, SignalMetrics
from spectrain.metrics.signal import band_name

MADE = ("sines", "chirp", "note")
MAX_SAMPLES = 2**20
RATE = 8000  # samples per second of a signal that is made here, where it is written as a WAV file


class SignalDataModule(FieldDataModule):
    """A signal for a network f: sample j of n lies at -1 + (2 j + 1) / n, and the largest value is 1 or -1.

    `path`: a signal made here ("sines", "chirp": 4 to n / 8 periods, "note": seven harmonics of 12 periods that die
    away), or a WAV, CSV, NumPy or torch file, one column per channel. `samples`: of a signal that is made, or at most
    so many of a file's first ones; None takes all. `frequencies`, `amplitudes`: of the sines, in periods over the whole
    signal and relative to each other (None: 1 each); their phases are drawn from `seed`. `batch_size`, `seed`: see
    `FieldDataModule`.

    Raises InputError naming data.path, data.samples, data.frequencies or data.amplitudes.
    """

    def __init__(
        self,
        path: str = "sines",
        samples: int | None = 1024,
        frequencies: Sequence[int] = (1, 2, 4, 8, 16, 32),
        amplitudes: Sequence[float] | None = None,
        *,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        if samples is not None and whole_number("data.samples", samples) > MAX_SAMPLES:
            raise InputError(f"data.samples={samples} is above {MAX_SAMPLES}; give fewer.")
        self.rate = RATE
        self.bands: list[tuple[int, int]] = []
        if path in MADE:
            n = 1024 if samples is None else samples
            values = self._make(path, n, frequencies, amplitudes)
        else:
            values = self._read(path)[:samples]
        self.signal = torch.from_numpy(_scaled(values, path)).float()
        n = len(self.signal)
        self.bands = self.bands or _octaves(n // 2)
        self.set_points(_places(n), self.signal, torch.arange(n))

    def _make(
        self, kind: str, n: int, frequencies: Sequence[int], amplitudes: Sequence[float] | None
    ) -> Float[np.ndarray, "n C"]:
        if n < 16:
            raise InputError(f"data.samples={n} is too few for a signal; give 16 or more.")
        t = (np.arange(n) + 0.5) / n
        if kind == "chirp":
            low, high = 4, max(5, n // 8)
            wave: np.ndarray = np.sin(2 * np.pi * (low * t + (high - low) * t**2 / 2))
            return wave[:, None]
        if kind == "note":
            harmonics = np.arange(1, min(8, n // 24 + 1))
            waves = np.sin(2 * np.pi * 12 * harmonics * t[:, None]) / harmonics
            note: np.ndarray = (waves * np.exp(-harmonics * t[:, None])).sum(1) * np.minimum(1, 20 * t)
            return note[:, None]
        kappa, a = _sines(n, frequencies, amplitudes)
        self.bands = [(k, k) for k in sorted(kappa)]
        phase = np.random.default_rng(self.seed).uniform(0, 2 * np.pi, len(kappa))
        sines: np.ndarray = (np.array(a) * np.sin(2 * np.pi * np.array(kappa) * t[:, None] + phase)).sum(1)
        return sines[:, None]

    def _read(self, path: Any) -> Float[np.ndarray, "n C"]:
        if not isinstance(path, str) or ("." not in Path(path).name and not Path(path).expanduser().exists()):
            raise InputError(
                f"data.path={path!r} is not a signal: give one of {', '.join(MADE)}, or a WAV, CSV, NumPy or torch "
                "file."
            )
        if path.lower().endswith((".wav", ".wave")):
            self.rate, values = read_wav(path)
            return values
        sheet = read_sheet(path)
        return sheet.numbers(range(len(sheet.names)))

    def metrics(self) -> SignalMetrics:
        """SNR, MSE and the error per band of frequencies."""
        return SignalMetrics(self.signal, self.bands)

    def headline(self, runs: Mapping[str, Columns]) -> dict[str, Any]:
        """The error of each band without the preconditioner."""
        without = runs.get("without", {})
        return {f"baseline_{name}": float(v[-1]) for name, v in without.items() if name.startswith("error_f")}

    def figures(self, metrics: FieldMetrics, runs: Mapping[str, Columns]) -> Figures:
        """The signal with the fit and its residual, both per frequency; SNR; the error per band over the steps."""
        measured = cast(SignalMetrics, metrics)
        signal, residual = (energy.cpu().numpy() for energy in measured.residual_energy())
        drawn: Figures = {
            "signal": (
                plots.signal_figure,
                {
                    "x": self.points[:, 0].numpy(),
                    "target": self.signal.numpy(),
                    "fit": measured.measured().cpu().numpy(),
                    "signal_energy": signal,
                    "residual_energy": residual,
                },
            ),
            **super().figures(metrics, runs),
        }
        names = [band_name(a, b) for a, b in measured.bands]
        if runs and len(names):
            columns = stacked(runs, ("step", *names))
            arrays = {
                "step": columns["step"],
                "error": np.stack([columns[name] for name in names], 1),
                "bands": np.array(measured.bands),
                "run": columns.get("run"),
            }
            drawn["frequencies"] = (plots.frequencies_figure, arrays)
        return drawn

    def export(self, folder: Path, metrics: FieldMetrics) -> None:
        """Also the fit as a WAV file, 32 bit float."""
        super().export(folder, metrics)
        wavfile.write(folder / "fit.wav", self.rate, metrics.measured().cpu().numpy())


def read_wav(path: str) -> tuple[int, Float[np.ndarray, "n C"]]:
    """Samples per second and values; integers of 8, 16, 24 or 32 bits become [-1, 1], floats stay as they are.

    Raises InputError naming data.path.
    """
    file = locate_file(path, "a WAV file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of chunks that hold no sound
            rate, data = wavfile.read(file)
    except Exception as error:
        raise InputError(f"data.path={path} cannot be read as a WAV file ({error}); give PCM or float.") from error
    values = np.asarray(data, np.float64)
    values = values if values.ndim == 2 else values[:, None]
    if data.dtype == np.uint8:
        values = (values - 128) / 128
    elif data.dtype.kind == "i":  # 24 bits arrive in the upper ones of 32
        values = values / -float(np.iinfo(data.dtype).min)
    return int(rate), values


def _places(n: int) -> Float[Tensor, "n 1"]:
    return (-1 + (2 * torch.arange(n, dtype=torch.float64) + 1) / n).float()[:, None]


def _scaled(values: Float[np.ndarray, "n C"], path: str) -> Float[np.ndarray, "n C"]:
    if len(values) < 16:
        raise InputError(f"data.path={path} has {len(values)} samples; a signal needs 16 or more.")
    if len(values) > MAX_SAMPLES:
        raise InputError(f"data.path={path} has {len(values)} samples; give data.samples, at most {MAX_SAMPLES}.")
    if not np.isfinite(values).all():
        raise InputError(f"data.path={path} holds NaN or infinite samples; give finite numbers.")
    peak = np.abs(values).max()
    if np.ptp(values, axis=0).max() == 0:
        raise InputError(f"data.path={path} is silent: all its samples are {values[0, 0]:g}.")
    scaled: np.ndarray = values / peak
    return scaled


def _octaves(highest: int) -> list[tuple[int, int]]:
    """(1, 1), (2, 3), (4, 7), ..., up to the highest frequency; the mean counts as none."""
    bands, low = [], 1
    while low <= highest:
        bands.append((low, min(2 * low - 1, highest)))
        low *= 2
    return bands


def _sines(n: int, frequencies: Any, amplitudes: Any) -> tuple[list[int], list[float]]:
    given = frequencies if isinstance(frequencies, list | tuple) else []
    whole = [k for k in given if isinstance(k, int) and not isinstance(k, bool) and 0 < k < n / 2]
    if not whole or len(whole) != len(given) or len(set(whole)) != len(whole):
        raise InputError(
            f"data.frequencies={frequencies} cannot be used: give different whole numbers of periods from 1 to "
            f"{(n - 1) // 2}, below half of the {n} samples."
        )
    heights = [1.0] * len(whole) if amplitudes is None else amplitudes
    numbers = isinstance(heights, list | tuple) and all(
        isinstance(a, int | float) and np.isfinite(a) and a > 0 for a in heights
    )
    if not numbers or len(heights) != len(whole):
        raise InputError(
            f"data.amplitudes={amplitudes} cannot be used: give a number above 0 for each of the {len(whole)} "
            "frequencies, or null."
        )
    if any(k > n / 4 for k in whole):
        warnings.warn(
            f"data.frequencies has {max(whole)} periods on {n} samples, fewer than four samples each: give more "
            "data.samples to see them.",
            SpectrainWarning,
            stacklevel=4,
        )
    return whole, heights
