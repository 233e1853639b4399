"""The spectral bias on a picture, and its control: where the residual's energy is, while a network learns.

Letters: H rows, W columns, n = H W points, T recorded steps, B bands of modes, R rings of frequencies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spectrain import plots
from spectrain.data.image import coordinate_grid
from spectrain.data.image_io import read_image
from spectrain.errors import InputError
from spectrain.kernels import empirical_ntk
from spectrain.metrics import BandEnergy
from spectrain.models import center_output, mlp
from spectrain.preconditioners import SamplePreconditioner
from spectrain.spectral_maps import power
from spectrain.spectrum import Spectrum
from spectrain.spectrum.frequencies import energy_per_radius
from spectrain.studies.cells import Cells
from spectrain.studies.descent import descend, measured_rate
from spectrain.studies.findings import Findings
from spectrain.studies.settings import check_number, check_whole

METHODS = ("gradient descent", "with S")
RINGS = (0, 2, 4, 8, 16)  # half periods over the picture


@dataclass
class SpectralBiasStudy:
    """A ReLU network learns a grey picture by full-batch descent, without and with S = power(alpha) on `rank` modes.

    Both take a quarter of their largest stable step size, measured every `every` steps, when S is refreshed too. The
    residual's energy is split by bands of the first kernel's modes and by rings of spatial frequency.
    """

    seed: int = 0
    path: str | None = None
    picture: int = 24
    width: int = 512
    depth: int = 2
    rank: int = 64
    alpha: float = 0.75
    every: int = 2
    steps: int = 100

    def __post_init__(self) -> None:
        check_whole(self, "width", "depth", "every", "steps")
        check_whole(self, "rank", least=2)
        check_number(self, "alpha", most=1)
        check_whole(self, "picture", least=RINGS[-1] + 1)  # so that no ring is empty
        if self.rank + 1 >= self.picture**2 // 2:
            raise InputError(f"study.rank={self.rank} cannot be used; a picture of {self.picture} has too few pixels.")

    def run(self, cells: Cells) -> Findings:
        """Train twice from the same weights."""
        cells.total = len(METHODS)
        found = [cells(name, partial(self._train, j)) for j, name in enumerate(METHODS)]
        # [methods, T, ..]
        bands, rings, pictures = (np.stack([cell[key] for cell in found]) for key in ("bands", "rings", "pictures"))
        steps, error = found[0]["step"], np.stack([cell["error"] for cell in found])
        arrays = {
            "step": steps,
            "bands": bands / bands[:, :1],
            "rings": _grouped(rings) / _grouped(rings)[:, :1],
            "last_mode": np.array(self._last_modes()),
            "edge": np.array(RINGS),
            "method": list(METHODS),
        }
        target = self._target().numpy()
        animation = partial(
            plots.save_bias_animation, step=steps, rings=rings / rings[:, :1], target=target, pictures=pictures
        )
        times = [self._steps_to_a_tenth(steps, row) for row in _grouped(rings) / _grouped(rings)[:, :1]]
        headline: dict[str, Any] = {
            "error_ratio_at_the_end": float(error[0, -1] / error[1, -1]),
            "mse_gradient_descent": float(error[0, -1]),
            "mse_with_S": float(error[1, -1]),
        }
        table = []
        for b, name in enumerate(plots.ring_names(RINGS)):
            texts = [f"not in {self.steps} steps" if np.isnan(t[b]) else f"after {t[b]:.0f} steps" for t in times]
            table.append((name, f"down to a tenth: {texts[0]} by gradient descent, {texts[1]} with S"))
            for method, row in zip(("gradient_descent", "with_S"), times, strict=True):
                headline[f"steps_ring_{RINGS[b]}_{method}"] = None if np.isnan(row[b]) else float(row[b])
        return Findings(
            headline, {"spectral_bias": (plots.bias_figure, arrays)}, table, {"spectral_bias.gif": animation}
        )

    def _target(self) -> Float[Tensor, "H W"]:
        return torch.from_numpy(read_image(self.path, self.picture, grayscale=True))[:, :, 0]

    def _last_modes(self) -> list[int]:
        """1, 4, 16, .. and the rank: the last mode of each band."""
        return [4**j for j in range(10) if 4**j < self.rank] + [self.rank]

    def _train(self, method: int) -> dict[str, Any]:
        target = self._target()
        shape = (target.shape[0], target.shape[1])
        x, y = coordinate_grid(*shape), target.reshape(-1, 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = mlp(2, 1, width=self.width, depth=self.depth, activation="relu", bias_scale=1.0)
        center_output(network, y.mean(0))
        first = Spectrum.from_kernel(empirical_ntk(network, x).detach(), self.rank)
        bands = BandEnergy(first, 1, [0, *self._last_modes()])
        S = SamplePreconditioner(power(self.alpha)) if method else None
        rate = measured_rate(network, x, S, 0.25, self.rank + 1, self.every)
        recorded, rows = self.recorded(), []
        for t, r in descend(network, x, y, S, rate):
            if t in recorded:
                bands.reset()
                bands.update(r, torch.arange(len(r)))
                rows.append((torch.stack(list(bands.compute().values())), energy_per_radius(r, shape), (y + r)))
            if t == self.steps:
                break
        return {
            "step": np.array(recorded),
            "bands": torch.stack([row[0] for row in rows]).numpy(),
            "rings": torch.stack([row[1] for row in rows]).numpy(),
            "pictures": torch.stack([row[2].reshape(shape) for row in rows]).numpy(),
            "error": np.array([float((row[2] - y).square().mean()) for row in rows]),
        }

    def recorded(self) -> list[int]:
        """Steps 0, 1, 2, .. ever farther apart, and the last."""
        return [0, *sorted({int(t) for t in np.geomspace(1, self.steps, 40).round()})]

    def _steps_to_a_tenth(self, steps: np.ndarray, share: np.ndarray) -> np.ndarray:
        """The first recorded step of each ring with at most a tenth of the energy of the start; nan where none is."""
        low = share <= 0.1
        return np.where(low.any(0), steps[low.argmax(0)].astype(float), np.nan)


def _grouped(rings: np.ndarray) -> np.ndarray:
    """[methods, T, radii] -> [methods, T, R], summed between the edges."""
    ends: Sequence[int] = [*RINGS, rings.shape[2]]
    return np.stack([rings[:, :, a:b].sum(2) for a, b in pairwise(ends)], 2)
