"""How far a trained network is from its kernel regression, by width."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from spectrain import plots
from spectrain.kernels import empirical_ntk
from spectrain.spectral_maps import flatten, identity
from spectrain.studies.cells import Cells
from spectrain.studies.converged import RANK, Problem, check, rate_arrays, relative, slope
from spectrain.studies.descent import first_modes
from spectrain.studies.findings import Findings
from spectrain.studies.two_layer import two_layer, two_layer_limit


@dataclass
class WidthStudy:
    """Distance of a network, trained to the end without and with S, to two kernel regressions, by width.

    "own": f_0 + k_0(z, X) K_0^-1 (y - f_0) with the network's own kernel at the start; "limit": the same with the
    kernel of infinite width. Theory: both fall like width^-1/2 at least, with every S > 0 (Jacot et al. 2018; Lee et
    al. 2019, arXiv 1902.06720).
    """

    seed: int = 0
    repeats: int = 3
    widths: Sequence[int] = (64, 256, 1024, 4096)
    points: int = 8
    most_steps: int = 20_000

    def __post_init__(self) -> None:
        check(self)

    def run(self, cells: Cells) -> Findings:
        """Train every width, seed and map."""
        cells.total = 2 * len(self.widths) * self.repeats
        problem = Problem(self.points)
        distance = np.empty((4, len(self.widths), self.repeats))
        worst = 0.0
        for w, width in enumerate(self.widths):
            for s in range(self.repeats):
                for j, g in enumerate((identity(), flatten(RANK))):
                    cell = cells(
                        f"width {width} seed {s} {'with S' if j else 'plain'}",
                        partial(self._train, problem, width, s, g),
                    )
                    distance[j, w, s], distance[2 + j, w, s] = cell["own"], cell["limit"]
                    worst = max(worst, float(cell["left"]))
        mean = distance.mean(2)
        names = [
            "own kernel, S = I",
            f"own kernel, flatten({RANK})",
            "limit kernel, S = I",
            f"limit kernel, flatten({RANK})",
        ]
        slopes = [slope(self.widths, row) for row in mean]
        headline = {
            "slope_own_kernel": slopes[0],
            "slope_own_kernel_with_S": slopes[1],
            "slope_limit_kernel": slopes[2],
            "slope_limit_kernel_with_S": slopes[3],
            "distance_at_largest_width": float(mean[0, -1]),
            "distance_at_largest_width_with_S": float(mean[1, -1]),
            "largest_training_residual": worst,
        }
        arrays = rate_arrays(self.widths, mean, names, "relative distance to kernel regression")
        table = [
            (name, f"{row[0]:.1e} at width {self.widths[0]}, {row[-1]:.1e} at {self.widths[-1]}: slope {p:.2f}")
            for name, row, p in zip(names, mean, slopes, strict=True)
        ]
        return Findings(headline, {"width": (plots.rate_figure, arrays)}, table)

    def _train(self, problem: Problem, width: int, s: int, g: Any) -> dict[str, float]:
        network = two_layer(2, width, self.seed + s)
        own = problem.regression(lambda a, b: empirical_ntk(network, a, b).detach(), network)
        limit = problem.regression(two_layer_limit, network)
        S, g_max = first_modes(network, problem.x, g)
        f, left = problem.trained(network, S, g_max, self.most_steps)
        return {"own": relative(f, own), "limit": relative(f, limit), "left": left}
