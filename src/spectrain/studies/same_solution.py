"""Every positive definite S ends in the same predictor: how far apart networks end up, by width."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from spectrain import plots
from spectrain.kernels import empirical_ntk
from spectrain.preconditioners import SamplePreconditioner
from spectrain.spectral_maps import custom, flatten, identity, power
from spectrain.spectrum import Spectrum
from spectrain.studies.cells import Cells
from spectrain.studies.converged import RANK, Problem, check, rate_arrays, slope
from spectrain.studies.descent import first_modes
from spectrain.studies.findings import Findings
from spectrain.studies.two_layer import two_layer


@dataclass
class SameSolutionStudy:
    """Distance between networks trained to the end with different S and the one trained with S = I, by width.

    S of the first kernel: flatten, power, and a random positive definite matrix, with random eigenvectors and
    eigenvalues between .3 and 1, which has nothing to do with the kernel. Theory: f_inf = f_0 + k(z, X) K^-1 (y - f_0)
    for every S > 0, so that the distance shrinks as the kernel's drift does (Geifman et al. 2024, arXiv 2307.14531).
    """

    seed: int = 0
    repeats: int = 3
    widths: Sequence[int] = (64, 256, 1024, 4096)
    points: int = 8
    most_steps: int = 60_000

    def __post_init__(self) -> None:
        check(self)

    def run(self, cells: Cells) -> Findings:
        """Train every width and seed with each S, from the same weights."""
        names = ["S = I", f"flatten({RANK})", f"power(.5, {RANK})", "random positive definite"]
        cells.total = len(names) * len(self.widths) * self.repeats
        problem = Problem(self.points)
        predictions = np.empty((len(names), len(self.widths), self.repeats, problem.test_points))
        worst = 0.0
        for w, width in enumerate(self.widths):
            for s in range(self.repeats):
                for j in range(len(names)):
                    cell = cells(
                        f"width {width} seed {s} S{j}",
                        partial(self._train, problem, width, s, j),
                    )
                    predictions[j, w, s] = cell["f"]
                    worst = max(worst, float(cell["left"]))
        plain = predictions[0]
        away = np.linalg.norm(predictions[1:] - plain, axis=-1) / np.linalg.norm(plain, axis=-1)
        mean = away.mean(2)
        slopes = [slope(self.widths, row) for row in mean]
        headline = {
            "largest_distance_at_largest_width": float(mean[:, -1].max()),
            "slope_flatten": slopes[0],
            "slope_power": slopes[1],
            "slope_random": slopes[2],
            "largest_training_residual": worst,
        }
        arrays = rate_arrays(self.widths, mean, names[1:], "relative distance to training with S = I")
        table = [
            (name, f"{row[0]:.1e} at width {self.widths[0]}, {row[-1]:.1e} at {self.widths[-1]}: slope {p:.2f}")
            for name, row, p in zip(names[1:], mean, slopes, strict=True)
        ]
        return Findings(headline, {"same_solution": (plots.rate_figure, arrays)}, table)

    def _train(self, problem: Problem, width: int, s: int, j: int) -> dict[str, Any]:
        network = two_layer(2, width, self.seed + s)
        if j < 3:
            S, g_max = first_modes(network, problem.x, (identity(), flatten(RANK), power(0.5, RANK))[j])
        else:
            S = random_positive_definite(self.points, self.seed + s)
            g_max = float(Spectrum.from_kernel(empirical_ntk(network, problem.x).detach(), 1).eigenvalues[0])  # S <= I
        f, left = problem.trained(network, S, g_max, self.most_steps)
        return {"f": f[:, 0].numpy(), "left": left}


def random_positive_definite(n: int, seed: int) -> SamplePreconditioner:
    """S = Q diag(d) Q^T, Q orthonormal at random, d uniform in [.3, 1]."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    d = 0.3 + 0.7 * torch.rand(n, generator=generator, dtype=torch.float64).sort(descending=True).values
    S = SamplePreconditioner(custom(lambda eigenvalues: eigenvalues))
    S.update(Spectrum(d, Q, torch.zeros_like(d), 0.0), dtype=torch.float64)
    return S
