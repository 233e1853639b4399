"""Steps to learn one frequency on the circle, and one degree of spherical harmonics on the sphere."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectrain import plots
from spectrain.preconditioners import SamplePreconditioner
from spectrain.spectral_maps import flatten, identity
from spectrain.spectrum import Spectrum
from spectrain.spectrum.dynamics import steps_to_fit
from spectrain.studies.cells import Cells
from spectrain.studies.descent import measured_rate, steps_to
from spectrain.studies.findings import Findings
from spectrain.studies.settings import check_number, check_whole
from spectrain.studies.two_layer import circle, even_angles, sphere, two_layer, two_layer_limit, wave, zonal

METHODS = ("gradient descent", "with S")
# Of the largest stable step size: nearly all for gradient descent, and the half that learns equal modes at once.
SHARES = (0.9, 0.5)


@dataclass(frozen=True)
class Domain:
    """Where the points lie, and the function of a number that is to be learned there."""

    name: str
    x: Tensor
    numbers: Sequence[int]
    target: Callable[[int], Tensor]
    rank: int  # of S: more than the modes up to the last number


@dataclass
class CircleStudy:
    """How many steps a two-layer network needs for sqrt(2) h cos(kappa angle), kappa = 1, 2, .., without and with S.

    Learned is |f - f_0 - y| <= tolerance |y|. Plain descent takes .9 of its largest stable step size; descent with S =
    flatten(rank) takes half of its own, and refreshes S at every step. The theory's steps are those of the kernel of
    infinite width. `height` h: the network stays as lazy for height h as one 1/h^2 times wider does for height one
    (Chizat et al. 2019, arXiv 1812.07956). Runs of more than `most_steps` steps are left to the theory.
    """

    seed: int = 0
    width: int = 2048
    height: float = 0.05
    tolerance: float = 0.1
    frequencies: Sequence[int] = field(default_factory=lambda: list(range(1, 13)))
    points: int = 48
    degrees: Sequence[int] = field(default_factory=lambda: list(range(1, 9)))
    sphere_points: int = 200
    most_steps: int = 20_000
    most_steps_on_sphere: int = 1_500

    def __post_init__(self) -> None:
        check_whole(self, "width", "frequencies", "points", "degrees", "sphere_points", "most_steps")
        check_whole(self, "most_steps_on_sphere")
        check_number(self, "height")
        check_number(self, "tolerance", most=0.5)
        # A few modes more than the last number has: the empirical kernel mixes neighbours.
        check_whole(self, "points", least=2 * max(self.frequencies) + 16)
        check_whole(self, "sphere_points", least=(max(self.degrees) + 2) ** 2 + 16)

    def run(self, cells: Cells) -> Findings:
        """Train for each number and method, and lay the theory over it."""
        domains = self._domains()
        cells.total = 2 * sum(len(domain.numbers) for domain in domains)
        most = (self.most_steps, self.most_steps_on_sphere)
        measured, predicted = [], []
        for domain, limit in zip(domains, most, strict=True):
            theory = self._theory(domain)
            trained = [
                [self._train(cells, domain, j, number, limit, theory[j][i]) for i, number in enumerate(domain.numbers)]
                for j in range(2)
            ]
            measured.append(trained)
            predicted.append(theory)
        return self._findings(domains, measured, predicted)

    def _domains(self) -> list[Domain]:
        angle, x = even_angles(self.points), sphere(self.sphere_points)
        last, degree = max(self.frequencies), max(self.degrees)
        return [
            Domain("circle", circle(angle), self.frequencies, lambda k: self.height * wave(angle, k), 2 * last + 15),
            Domain("sphere", x, self.degrees, lambda k: self.height * zonal(x, k), (degree + 2) ** 2 + 15),
        ]

    def _theory(self, domain: Domain) -> list[list[float]]:
        """Steps for each method and number, from the kernel of infinite width."""
        spectrum = Spectrum.from_kernel(two_layer_limit(domain.x))
        out = []
        for g, share in zip((identity(), flatten(domain.rank)), SHARES, strict=True):
            eta = share * 2 / float((spectrum.ratio(g) * spectrum.eigenvalues).max())
            out.append([steps_to_fit(spectrum, domain.target(k), g, eta, self.tolerance) for k in domain.numbers])
        return out

    def _train(self, cells: Cells, domain: Domain, j: int, number: int, most: int, expected: float) -> float:
        def compute() -> dict[str, Any]:
            network = two_layer(domain.x.shape[1], self.width, self.seed)
            with torch.no_grad():
                y = domain.target(number) + network(domain.x)
            S = SamplePreconditioner(flatten()) if j else None
            # The kernel of plain descent needs no refresh; its step size is looked after as the weights move.
            rate = measured_rate(network, domain.x, S, SHARES[j], domain.rank + 1, 1 if j else 500)
            steps = steps_to(network, domain.x, y, S, rate, self.tolerance, most) if expected <= most else None
            return {"steps": math.nan if steps is None else steps}

        return float(cells(f"{domain.name} {number} {METHODS[j]}", compute)["steps"])

    def _findings(self, domains: list[Domain], measured: list[Any], predicted: list[Any]) -> Findings:
        headline: dict[str, Any] = {}
        table = []
        for domain, trained, theory in zip(domains, measured, predicted, strict=True):
            last, ours = domain.numbers[-1], trained[1][-1]
            # Where plain descent was too long to run, its steps are the theory's.
            is_known = math.isfinite(trained[0][-1])
            plain, source = (trained[0][-1], "measured") if is_known else (theory[0][-1], "predicted")
            learned = all(math.isfinite(steps) for steps in trained[1])
            headline |= {
                f"{domain.name}_fewer_steps_at_{last}": round(plain / ours, 1) if math.isfinite(ours) else None,
                f"{domain.name}_gradient_descent_at_{last}": plain,
                f"{domain.name}_gradient_descent_is": source,
                f"{domain.name}_with_S_at_{last}": ours if math.isfinite(ours) else None,
                f"{domain.name}_most_with_S": max(trained[1]) if learned else None,
            }
            fewer = f"{ours:.0f} with S: {plain / ours:.0f}x fewer" if math.isfinite(ours) else "not learned with S"
            table.append(
                (f"{domain.name}, number {last}", f"{plain:.0f} steps by gradient descent ({source}), {fewer}")
            )
        count = max(len(domain.numbers) for domain in domains)
        arrays = {
            "number": _padded([domain.numbers for domain in domains], count),
            "predicted": np.stack([_padded(theory, count) for theory in predicted]),
            "measured": np.stack([_padded(trained, count) for trained in measured]),
            "method": list(METHODS),
            "title": [f"Circle: frequency, two-layer ReLU, width {self.width:,}", "Sphere: degree of the harmonics"],
            "xlabel": ["frequency κ", "degree l"],
            "exponent": [2, 3],
        }
        return Findings(headline, {"circle": (plots.learning_steps_figure, arrays)}, table)


def _padded(rows: Sequence[Sequence[float]], count: int) -> np.ndarray:
    """Rows of different lengths, filled up with nan."""
    return np.array([[*row, *[math.nan] * (count - len(row))] for row in rows], dtype=float)
