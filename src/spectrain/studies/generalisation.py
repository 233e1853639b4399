"""Test error against the strength of the spectral map, for targets that fit the kernel and that do not, with noise.

Letters: n training points, m test points, T step counts, A strengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spectrain import plots
from spectrain.errors import InputError
from spectrain.selection.descent import predict_descent
from spectrain.spectral_maps import SpectralMap, identity, power, raise_head
from spectrain.spectrum import Spectrum
from spectrain.studies.cells import Cells
from spectrain.studies.descent import descend, first_modes
from spectrain.studies.findings import Findings
from spectrain.studies.settings import check_number, check_whole
from spectrain.studies.two_layer import circle, even_angles, two_layer, two_layer_limit, wave

TARGETS = ("aligned", "misaligned")


@dataclass(frozen=True)
class Sample:
    """Noisy values y at n random points x of the circle, in units of the target, and the clean ones at m others."""

    x: Float[Tensor, "n 2"]
    y: Float[Tensor, "n 1"]
    z: Float[Tensor, "m 2"]
    clean: Float[Tensor, "m 1"]


@dataclass
class GeneralisationStudy:
    """Error on clean unseen points against alpha, g = lambda (max(lambda, c) / c)^-alpha on the first `rank` modes.

    alpha < 0 raises the head, 0 is plain descent, 1 flattens. Targets of mean square one: "aligned" sqrt(2) cos(a), in
    the kernel's first modes, "misaligned" sqrt(2) cos(6 a). Steps of 1/g_max; the error at the best time (in
    hindsight, of `steps`) and after `fixed` steps. Theory: the same descent on the kernel of infinite width,
    `predict_descent`, which is what `suggest_spectral_map` chooses by. `height` scales target and noise alike, to keep
    the network lazy (see `CircleStudy`).
    """

    seed: int = 0
    repeats: int = 3
    width: int = 1024
    height: float = 0.1
    strengths: Sequence[float] = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0)
    noises: Sequence[float] = (0.0, 0.1, 0.3)
    points: int = 64
    rank: int = 16
    steps: Sequence[int] = (1, 2, 3, 5, 7, 10, 14, 20, 30, 50, 70, 100, 140, 200, 300, 500, 700, 1000)
    fixed: int = 100

    def __post_init__(self) -> None:
        check_whole(self, "repeats", "width", "rank", "steps")
        check_whole(self, "points", least=self.rank + 2)
        check_number(self, "height")
        check_number(self, "strengths", above=-4.0, most=1.0)
        check_number(self, "noises", zero=True)
        for name in ("strengths", "noises", "steps"):
            if isinstance(getattr(self, name), (int, float)):
                raise InputError(f"study.{name}={getattr(self, name)} must be a list, such as [{getattr(self, name)}].")
        if self.fixed not in self.steps:
            raise InputError(f"study.fixed={self.fixed} must be one of study.steps={list(self.steps)}.")

    def run(self, cells: Cells) -> Findings:
        """Every target, noise and draw, with every strength."""
        cells.total = len(TARGETS) * len(self.noises) * self.repeats
        shape = (len(TARGETS), len(self.noises), self.repeats, len(self.strengths), len(self.steps))
        network, theory = np.empty(shape), np.empty(shape)
        for i, target in enumerate(TARGETS):
            for j, noise in enumerate(self.noises):
                for s in range(self.repeats):
                    cell = cells(
                        f"{target}, noise {noise:g}, seed {s}",
                        partial(self._cell, target, noise, self.seed + s),
                    )
                    network[i, j, s], theory[i, j, s] = cell["network"], cell["theory"]
        return self._findings(network, theory)

    def sample(self, target: str, noise: float, seed: int) -> Sample:
        """One draw of points and noise; the noise is `noise` times a draw that the seed alone decides."""
        generator = torch.Generator().manual_seed(seed)
        frequency = {"aligned": 1, "misaligned": 6}[target]
        angle = 2 * torch.pi * torch.rand(self.points, generator=generator, dtype=torch.float64)
        y = wave(angle, frequency) + noise * torch.randn(self.points, 1, generator=generator, dtype=torch.float64)
        test = even_angles(256)
        return Sample(circle(angle), y, circle(test), wave(test, frequency))

    def spectral_map(self, strength: float) -> SpectralMap:
        """The map of that strength."""
        if strength == 0:
            return identity()
        return power(strength, self.rank) if strength > 0 else raise_head(-strength, self.rank)

    def _cell(self, target: str, noise: float, seed: int) -> dict[str, Any]:
        sample = self.sample(target, noise, seed)
        maps = [self.spectral_map(strength) for strength in self.strengths]
        spectrum = Spectrum.from_kernel(two_layer_limit(sample.x))
        f = predict_descent(spectrum, two_layer_limit(sample.z, sample.x), sample.y, maps, self.steps)
        theory = (f - sample.clean).square().mean((2, 3))
        trained = torch.stack([self._trained(sample, g, seed) for g in maps])
        return {"theory": theory.numpy(), "network": (trained - sample.clean).square().mean((2, 3)).numpy()}

    def _trained(self, sample: Sample, g: SpectralMap, seed: int) -> Float[Tensor, "T m 1"]:
        """What the network predicts after each of `steps` steps, with S of its first kernel, from f_0 on."""
        net = two_layer(2, self.width, seed)
        S, g_max = first_modes(net, sample.x, g)
        mean = sample.y.mean(0)
        with torch.no_grad():
            start, y = net(sample.z), net(sample.x) + self.height * (sample.y - mean)
        out = []
        for t, _ in islice(descend(net, sample.x, y, S, lambda _: 1 / g_max), max(self.steps) + 1):
            if t in self.steps:
                with torch.no_grad():
                    out.append((net(sample.z) - start) / self.height + mean)
        return torch.stack(out)

    def _findings(self, network: np.ndarray, theory: np.ndarray) -> Findings:
        # [targets, noises, repeats, A, T] -> stopped at the best time, and after `fixed` steps: [2, targets, noises, A]
        at = list(self.steps).index(self.fixed)
        stopped = [np.stack([error.min(-1).mean(2), error[..., at].mean(2)]) for error in (network, theory)]
        gap = np.abs(np.log10(stopped[0] / stopped[1]))
        arrays = {
            "strength": np.array(self.strengths),
            "network": stopped[0],
            "theory": stopped[1],
            "noise": np.array(self.noises),
            "row": [f"best of {max(self.steps):,} steps", f"after {self.fixed} steps"],
            "column": ["Aligned: cos(a)", "Misaligned: cos(6a)"],
        }
        headline: dict[str, Any] = {"median_factor_between_theory_and_network": float(10 ** np.median(gap))}
        headline["largest_factor_between_theory_and_network"] = float(10 ** gap.max())
        table = []
        for i, target in enumerate(TARGETS):
            for j, noise in enumerate(self.noises):
                # Network and theory, at the best time and after the fixed number of steps.
                (free, fixed), (told, told_fixed) = [
                    [float(self.strengths[int(error[when, i, j].argmin())]) for when in (0, 1)] for error in stopped
                ]
                headline[f"best_strength_{target}_noise_{noise:g}"] = free
                headline[f"best_strength_{target}_noise_{noise:g}_fixed_steps"] = fixed
                text = f"best strength {free:g} (theory {told:g}); after {self.fixed} steps {fixed:g} ({told_fixed:g})"
                table.append((f"{target}, noise {noise:g}", text))
        return Findings(headline, {"generalisation": (plots.strength_figure, arrays)}, table)
