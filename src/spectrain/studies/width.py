"""How far trained networks are from kernel regression, and from each other, by width.

Letters: n training points, m test points.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain import plots
from spectrain.errors import InputError
from spectrain.kernels import empirical_ntk
from spectrain.preconditioners import SamplePreconditioner
from spectrain.regression import KernelRegression
from spectrain.spectral_maps import custom, flatten, identity, power
from spectrain.spectrum import Spectrum
from spectrain.studies.cells import Cells
from spectrain.studies.descent import descend, first_modes
from spectrain.studies.findings import Findings
from spectrain.studies.settings import check_whole
from spectrain.studies.two_layer import circle, even_angles, two_layer, two_layer_limit

CONVERGED = 1e-6  # of |y|, the training residual at which a network counts as trained
RANK = 5  # of flatten and power on the training points
Learned = tuple[Float[Tensor, "m 1"], float]  # predictions on the test points, |r| / |y| on the training points


@dataclass
class Problem:
    """sin a + cos(2 a) / 2 at n points of the circle, to be predicted at m others."""

    points: int
    test_points: int = 200
    x: Tensor = field(init=False)
    y: Tensor = field(init=False)
    z: Tensor = field(init=False)

    def __post_init__(self) -> None:
        angle = even_angles(self.points)
        self.x, self.z = circle(angle), circle(even_angles(self.test_points))
        self.y = (torch.sin(angle) + 0.5 * torch.cos(2 * angle))[:, None]

    def trained(self, network: nn.Module, S: SamplePreconditioner, g_max: float, most: int) -> Learned:
        """Descent with steps of 1 / (2 g_max) on S of the first kernel until |r| <= CONVERGED |y|, `most` at most."""
        left = 1.0
        for _, r in islice(descend(network, self.x, self.y, S, lambda _: 0.5 / g_max), most + 1):
            left = float(r.norm() / self.y.norm())
            if left <= CONVERGED:
                break
        with torch.no_grad():
            return network(self.z), left

    def regression(self, kernel: Callable[[Tensor, Tensor], Tensor], network: nn.Module) -> Float[Tensor, "m 1"]:
        """f_0 + k(z, X) K^-1 (y - f_0): what the linearised network ends in."""
        with torch.no_grad():
            fitted = KernelRegression(kernel, ridge=0.0).fit(self.x, self.y - network(self.x))
            return network(self.z) + fitted.predict(self.z)


@dataclass
class WidthStudy:
    """Distance of a network, trained to the end without and with S, to two kernel regressions, by width.

    "own": f_0 + k_0(z, X) K_0^-1 (y - f_0) with the network's own kernel at the start; "limit": the same with the
    kernel of infinite width. Theory: both fall like width^-1/2 at least, with every S > 0 (Jacot et al. 2018; Lee et
    al. 2019, arXiv 1902.06720).
    """

    seed: int = 0
    seeds: int = 3
    widths: Sequence[int] = (64, 256, 1024, 4096)
    points: int = 8
    most_steps: int = 20_000

    def __post_init__(self) -> None:
        _check(self)

    def run(self, cells: Cells) -> Findings:
        """Train every width, seed and map."""
        cells.total = 2 * len(self.widths) * self.seeds
        problem = Problem(self.points)
        distance = np.empty((4, len(self.widths), self.seeds))
        worst = 0.0
        for w, width in enumerate(self.widths):
            for s in range(self.seeds):
                for j, g in enumerate((identity(), flatten(RANK))):
                    cell = cells(
                        f"width {width} seed {s} {'with S' if j else 'plain'}",
                        lambda width=width, s=s, g=g: self._train(problem, width, s, g),  # type: ignore[misc]
                    )
                    distance[j, w, s], distance[2 + j, w, s] = cell["own"], cell["limit"]
                    worst = max(worst, float(cell["left"]))
        mean = distance.mean(2)
        names = ["own kernel, S = I", f"own kernel, flatten({RANK})", "limit kernel, S = I", f"limit kernel, flatten({RANK})"]
        slopes = [_slope(self.widths, row) for row in mean]
        headline = {
            "slope_own_kernel": slopes[0],
            "slope_own_kernel_with_S": slopes[1],
            "slope_limit_kernel": slopes[2],
            "slope_limit_kernel_with_S": slopes[3],
            "distance_at_largest_width": float(mean[0, -1]),
            "distance_at_largest_width_with_S": float(mean[1, -1]),
            "largest_training_residual": worst,
        }
        arrays = _rate_arrays(self.widths, mean, names, "relative distance to kernel regression")
        table = [
            (name, f"{row[0]:.1e} at width {self.widths[0]}, {row[-1]:.1e} at {self.widths[-1]}: slope {slope:.2f}")
            for name, row, slope in zip(names, mean, slopes, strict=True)
        ]
        return Findings(headline, {"width": (plots.rate_figure, arrays)}, table)

    def _train(self, problem: Problem, width: int, s: int, g: Any) -> dict[str, float]:
        network = two_layer(2, width, self.seed + s)
        own = problem.regression(lambda a, b: empirical_ntk(network, a, b).detach(), network)
        limit = problem.regression(two_layer_limit, network)
        S, g_max = first_modes(network, problem.x, g)
        f, left = problem.trained(network, S, g_max, self.most_steps)
        return {"own": relative(f, own), "limit": relative(f, limit), "left": left}


@dataclass
class SameSolutionStudy:
    """Distance between networks trained to the end with different S and the one trained with S = I, by width.

    S of the first kernel: flatten, power, and a random positive definite matrix, with random eigenvectors and
    eigenvalues between .3 and 1, which has nothing to do with the kernel. Theory: f_inf = f_0 + k(z, X) K^-1 (y - f_0)
    for every S > 0, so that the distance shrinks as the kernel's drift does (Geifman et al. 2024, arXiv 2307.14531).
    """

    seed: int = 0
    seeds: int = 3
    widths: Sequence[int] = (64, 256, 1024, 4096)
    points: int = 8
    most_steps: int = 60_000

    def __post_init__(self) -> None:
        _check(self)

    def run(self, cells: Cells) -> Findings:
        """Train every width and seed with each S, from the same weights."""
        names = ["S = I", f"flatten({RANK})", f"power(.5, {RANK})", "random positive definite"]
        cells.total = len(names) * len(self.widths) * self.seeds
        problem = Problem(self.points)
        predictions = np.empty((len(names), len(self.widths), self.seeds, problem.test_points))
        worst = 0.0
        for w, width in enumerate(self.widths):
            for s in range(self.seeds):
                for j in range(len(names)):
                    cell = cells(
                        f"width {width} seed {s} S{j}",
                        lambda width=width, s=s, j=j: self._train(problem, width, s, j),  # type: ignore[misc]
                    )
                    predictions[j, w, s] = cell["f"]
                    worst = max(worst, float(cell["left"]))
        plain = predictions[0]
        away = np.linalg.norm(predictions[1:] - plain, axis=-1) / np.linalg.norm(plain, axis=-1)
        mean = away.mean(2)
        slopes = [_slope(self.widths, row) for row in mean]
        headline = {
            "largest_distance_at_largest_width": float(mean[:, -1].max()),
            "slope_flatten": slopes[0],
            "slope_power": slopes[1],
            "slope_random": slopes[2],
            "largest_training_residual": worst,
        }
        arrays = _rate_arrays(self.widths, mean, names[1:], "relative distance to training with S = I")
        table = [
            (name, f"{row[0]:.1e} at width {self.widths[0]}, {row[-1]:.1e} at {self.widths[-1]}: slope {slope:.2f}")
            for name, row, slope in zip(names[1:], mean, slopes, strict=True)
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


def relative(f: Tensor, reference: Tensor) -> float:
    """|f - reference| / |reference|."""
    return float((f - reference).norm() / reference.norm())


def _check(study: Any) -> None:
    check_whole(study, "widths", "seeds", "most_steps")
    check_whole(study, "points", least=RANK + 2)
    if not isinstance(study.widths, Sequence) or len(set(study.widths)) < 2:
        raise InputError(f"study.widths={study.widths!r} cannot be used; a slope needs at least two widths, as [64, 256].")


def _slope(widths: Sequence[int], values: np.ndarray) -> float:
    return float(np.polyfit(np.log(widths), np.log(values), 1)[0])


def _rate_arrays(widths: Sequence[int], error: np.ndarray, name: list[str], ylabel: str) -> dict[str, Any]:
    return {"size": np.array(widths), "error": error, "name": name, "xlabel": "width", "ylabel": ylabel}
