"""The gain of S against the batch size: S raises the batch size from which on a larger one buys nothing.

Letters: n training points, m points of a minibatch, lambda' the largest eigenvalue of the preconditioned K/n, beta the
largest preconditioned kernel value k_P(x, x).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spectrain import plots
from spectrain.errors import InputError
from spectrain.kernels import empirical_ntk
from spectrain.preconditioners import (
    ParameterPreconditioner,
    Preconditioner,
    SamplePreconditioner,
    largest_preconditioned_eigenvalue,
)
from spectrain.preconditioners.step_size import eigenpro_step_size, largest_diagonal
from spectrain.spectral_maps import flatten, identity
from spectrain.spectrum import Spectrum
from spectrain.spectrum.dynamics import steps_to_fit
from spectrain.studies.cells import Cells
from spectrain.studies.findings import Findings
from spectrain.studies.settings import check_number, check_whole
from spectrain.studies.two_layer import circle, even_angles, two_layer, wave

METHODS = ("plain SGD", "P on the parameters", "S on the outputs")
SHARES = (0.25, 0.5, 0.7, 1.0, 1.4)  # of EigenPro 2's step size, of which the best counts; the theory itself ends at 1


@dataclass
class BatchSizeStudy:
    """Steps of SGD to fit a wave on the circle, by batch size m, plain and with a fixed preconditioner of either side.

    Theory (Ma, Bassily and Belkin 2018, arXiv 1712.06559; EigenPro 2, Ma and Belkin 2019): the step size grows with m,
    see `eigenpro_step_size`, up to m* = beta / lambda' + 1, and larger batches buy at most a factor of two. Its
    curve is the number of steps of the mean residual, E r_t = (I - eta K S / n)^t r_0. That is P's process: with
    minibatches S forms S_BB on the batch's own rows, whose mean step is another, so that for S the curve is the theory
    at m = n alone. Network and theory both take the best of a few shares of that step size. `height` keeps the network
    lazy, see `CircleStudy`.
    """

    seed: int = 0
    repeats: int = 3
    width: int = 1024
    height: float = 0.05
    frequency: int = 4
    tolerance: float = 0.1
    rank: int = 16
    points: int = 256
    batch_sizes: Sequence[int] = (1, 4, 16, 64, 256)
    most_steps: int = 4_000

    def __post_init__(self) -> None:
        check_whole(self, "repeats", "width", "frequency", "batch_sizes", "most_steps")
        check_whole(self, "rank", least=2)
        check_whole(self, "points", least=2 * self.rank)
        check_number(self, "height")
        check_number(self, "tolerance", most=0.5)
        if isinstance(self.batch_sizes, int) or max(self.batch_sizes) > self.points:
            raise InputError(
                f"study.batch_sizes={self.batch_sizes!r} must be a list of numbers up to study.points={self.points}."
            )

    def run(self, cells: Cells) -> Findings:
        """Every method and batch size."""
        cells.total = 1 + len(METHODS) * len(self.batch_sizes)
        theory = cells("theory", self._theory)
        steps = np.empty((len(METHODS), len(self.batch_sizes)))
        for i, name in enumerate(METHODS):
            for j, m in enumerate(self.batch_sizes):
                eta = float(theory["eta"][min(i, 1), j])
                steps[i, j] = cells(f"{name}, batch {m}", partial(self._cell, i, m, eta))["steps"]
        return self._findings(theory, steps)

    def _start(self, method: int) -> tuple[nn.Module, Tensor, Tensor, Preconditioner | None]:
        """Network, points, targets and the preconditioner of its first kernel."""
        angle = even_angles(self.points)
        x, network = circle(angle), two_layer(2, self.width, self.seed)
        with torch.no_grad():
            y = self.height * wave(angle, self.frequency) + network(x)
        kinds = (None, ParameterPreconditioner, SamplePreconditioner)
        kind = kinds[method]
        if kind is None:
            return network, x, y, None
        P = kind(flatten())
        P.refresh(network, x, rank=self.rank + 1, subset_size=self.points)
        return network, x, y, P

    def _theory(self) -> dict[str, Any]:
        """eta(m), m* and the steps of the mean residual, for plain descent and for a preconditioner of either side."""
        out: dict[str, list[Any]] = {"eta": [], "critical": [], "steps": []}
        for method, g in enumerate((identity(), flatten(self.rank))):
            network, x, y, P = self._start(method)
            spectrum = Spectrum.from_kernel(empirical_ntk(network, x).detach())
            modes = P.modes[1] if P is not None and P.modes is not None else None
            beta = largest_diagonal(network, x, P, spectrum=modes)
            top = largest_preconditioned_eigenvalue(network, x, P)
            eta = [eigenpro_step_size(top, beta, m) for m in self.batch_sizes]
            with torch.no_grad():
                r = network(x) - y
            out["eta"].append(eta)
            out["critical"].append(beta / top + 1)
            shares = [share for share in SHARES if share <= 1]
            out["steps"].append([min(steps_to_fit(spectrum, r, g, c * e, self.tolerance) for c in shares) for e in eta])
        return out

    def _cell(self, method: int, m: int, eta: float) -> dict[str, Any]:
        """The fewest steps over the step sizes; of the median over draws of the batches."""
        draws = 1 if m == self.points else self.repeats
        steps = [[self._steps(method, m, share * eta, s) for s in range(draws)] for share in SHARES]
        return {"steps": min(float(np.median(row)) for row in steps), "of_each": np.array(steps)}

    def _steps(self, method: int, m: int, eta: float, seed: int) -> float:
        """Steps until |r| <= tolerance |r_0| on all points, looked at ever more rarely; inf if it never is."""
        network, x, y, P = self._start(method)
        base: torch.optim.Optimizer = torch.optim.SGD(network.parameters(), lr=eta)
        optimizer = base if P is None else P.wrap(base)
        generator = torch.Generator().manual_seed(1000 + seed)
        with torch.no_grad():
            start, look = float((network(x) - y).norm()), 1
        for t in range(1, self.most_steps + 1):
            batch = torch.randperm(len(x), generator=generator)[:m]
            out = network(x[batch]) if P is None else P.run(network, x[batch], batch)
            optimizer.zero_grad()
            ((out - y[batch]).square().sum() / (2 * m)).backward()
            optimizer.step()
            if t >= look:
                look = max(t + 1, math.ceil(1.02 * t))
                with torch.no_grad():
                    size = float((network(x) - y).norm())
                if size <= self.tolerance * start:
                    return float(t)
                if not size <= 100 * start:
                    break
        return math.inf

    def _findings(self, theory: dict[str, np.ndarray], steps: np.ndarray) -> Findings:
        with np.errstate(invalid="ignore"):  # neither was learned
            gain, expected = steps[0] / steps[1:], theory["steps"][0] / theory["steps"][1]
        headline: dict[str, Any] = {
            "critical_batch_raised": float(theory["critical"][1] / theory["critical"][0]),
            "critical_batch_plain": float(theory["critical"][0]),
            "critical_batch_with_S": float(theory["critical"][1]),
        }
        table = [
            ("critical batch size", f"{theory['critical'][0]:.1f} plain, {theory['critical'][1]:.0f} with S (theory)")
        ]
        for j, m in enumerate(self.batch_sizes):
            found = [float(g) if np.isfinite(g) and g > 0 else None for g in gain[:, j]]
            headline |= {f"gain_at_{m}_parameter_side": found[0], f"gain_at_{m}_sample_side": found[1]}
            headline[f"gain_at_{m}_theory"] = float(expected[j])
            texts = ["not learned" if g is None else f"{g:.0f}x fewer steps" for g in found]
            table.append((f"batch {m}", f"P: {texts[0]}; S: {texts[1]}; theory {expected[j]:.0f}x"))
        arrays = {
            "batch_size": np.array(self.batch_sizes),
            "predicted": theory["steps"],
            "measured": np.where(np.isfinite(steps), steps, np.nan),
            "critical": theory["critical"],
            "method": list(METHODS),
        }
        return Findings(headline, {"batch_size": (plots.batch_size_figure, arrays)}, table)
