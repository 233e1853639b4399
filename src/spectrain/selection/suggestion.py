"""Which spectral map, and how many steps, for this kernel and these targets.

Letters: n points, C outputs, M maps, T step counts, J = M T candidates. Eigenvalues are of K/n.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from spectrain.errors import InputError
from spectrain.selection.candidate import Candidate
from spectrain.selection.descent import closed_form_errors, distinct, filters, held_out_errors, split_folds
from spectrain.selection.pilot import Pilot
from spectrain.selection.words import reason
from spectrain.spectral_maps import SpectralMap, flatten, identity, power
from spectrain.spectrum import Spectrum

_RESAMPLES = 200
# Predicted errors this close are one: fewer steps decide between them.
_CLOSE = 0.005
# Predictions this close, in units of the targets' deviation, are one predictor: no error changes by as much as can be
# measured (docs/choosing_g.md).
_SAME = 1e-4


@dataclass(frozen=True)
class Suggestion:
    """All candidates, best first, and why. What several names stand for counts once in `distinct`.

    `noise` is the noise's standard deviation in each output: the given one, or an estimate.
    The estimate counts detail that this kernel cannot learn from n points as noise.
    """

    ranking: list[Candidate]
    reason: str
    noise: float
    plain: Candidate = field(repr=False)

    @property
    def best(self) -> Candidate:
        """The suggested candidate."""
        return self.ranking[0]

    @property
    def spectral_map(self) -> SpectralMap:
        """The suggested map."""
        return self.best.spectral_map

    @property
    def steps(self) -> int:
        """The suggested number of steps of size 1/g_max."""
        return self.best.steps

    @property
    def distinct(self) -> list[Candidate]:
        """The candidates that are different predictors: each under the name that takes the fewest steps."""
        return [c for c in self.ranking if c.same_as is None]

    def __str__(self) -> str:
        lines = [f"{'map':32s} {'steps':>7s} {'predicted error':>16s} {'+-':>9s} {'confidence':>10s}"]
        for g in dict.fromkeys(c.spectral_map for c in self.ranking):
            c = self.best if g == self.spectral_map else _quickest(self.ranking, g)
            lines.append(
                f"{c.spectral_map!r:32s} {c.steps:7d} {c.predicted_error:16.4g} {c.standard_error:9.2g} "
                f"{c.confidence:10.2f}{_twin(c)}"
            )
        return "\n".join([*lines, self.reason])


def _quickest(ranking: Sequence[Candidate], g: SpectralMap) -> Candidate:
    """Of one map, the fewest steps among the smallest errors."""
    own = [c for c in ranking if c.spectral_map == g]
    smallest = min(c.predicted_error for c in own)
    return min((c for c in own if c.predicted_error <= (1 + _CLOSE) * smallest), key=lambda c: c.steps)


def _twin(c: Candidate) -> str:
    return "" if c.same_as is None else f"  the same predictor as {c.same_as[0]!r} after {c.same_as[1]}"


def default_maps(n: int) -> list[SpectralMap]:
    """identity, and power (.25, .5, .75) and flatten at ranks 4, 16, 64, .. below half of n."""
    ranks = [4**j for j in range(1, 10) if 4**j <= n // 2]
    shapes: list[SpectralMap] = [identity()]
    for r in ranks:
        shapes += [power(0.25, r), power(0.5, r), power(0.75, r), flatten(r)]
    return shapes


def default_steps(limit: int | None) -> list[int]:
    """1, 3, 10, 30, .. up to the limit (10^5 when there is none), and the limit itself."""
    highest = 100_000 if limit is None else limit
    return sorted({s for e in range(6) for s in (10**e, 3 * 10**e) if s <= highest} | {highest})


def suggest_spectral_map(
    kernel_or_spectrum: Float[Tensor, "n n"] | Float[np.ndarray, "n n"] | Spectrum,
    y: Shaped[Tensor, "n *C"] | Shaped[np.ndarray, "n *C"],
    noise: float | None = None,
    steps: int | None = None,
    *,
    maps: Sequence[SpectralMap] | None = None,
    pilot: Callable[[SpectralMap], Pilot] | None = None,
    max_points: int = 1024,
) -> Suggestion:
    """Ranks maps and numbers of steps by their predicted error on unseen points, without training.

    For each map, preconditioned gradient descent stopped at t is the filter f_i = 1 - (1 - g_i/g_max)^t of the kernel's
    modes. Its error is predicted at every point from the nine tenths of the points that do not hold it (ten
    eigendecompositions, and up to five draws of the tenths where there are fewer than 1,024 points; targets are spread
    alike over the tenths); resampling the points gives the confidence. Within .5 % of the smallest predicted error,
    fewer steps win; a map that saves no steps must gain a standard error on identity. For a fixed kernel and squared
    loss this is exact but for the sampling; for a network it is the linearised prediction.

    kernel_or_spectrum: K [n, n] on the training points, or its Spectrum. y [n] or [n, C]. Both may be tensors or NumPy
    arrays. noise: the standard deviation
    of the noise in y, when it is known; it is taken off the predicted errors. steps: the largest number of steps that
    can be afforded. pilot: what a few real steps of a network say about a map (`network_pilot`); maps that would
    diverge are left out, and a step counts for what it was worth there. More than max_points points are thinned at
    random, with a seed of their own. Deterministic.

    Sources: the filter, Geifman et al. 2024 (arXiv 2307.14531); held-out folds, Stone 1974; resampling, Efron 1979.

    Raises InputError for what is not an array of numbers, fewer than 20 points, a kernel that `Spectrum.from_kernel`
    refuses, a y of another length or with numbers that are not finite, and noise < 0 or steps < 1.
    """
    given = kernel_or_spectrum if isinstance(kernel_or_spectrum, Spectrum) else _tensor("kernel", kernel_or_spectrum)
    K, Y = _checked(given, _tensor("y", y), noise, steps, max_points)
    spectrum = Spectrum.from_kernel(K)  # refuses what is not symmetric
    K = (K + K.T) / 2
    tried = default_maps(len(K)) if maps is None else [identity(), *(g for g in maps if g != identity())]
    results = {g: pilot(g) if pilot is not None else Pilot(growth=1.0, pace=1.0) for g in tried}
    kept = [g for g in tried if results[g].stable or g == identity()]
    counts, paces = default_steps(steps), [results[g].pace for g in kept]
    by_map, apart = held_out_errors(split_folds(K, Y, draws=_draws(len(K))), Y, kept, counts, paces)
    errors = torch.nan_to_num(by_map, nan=math.inf).flatten(0, 1)  # [J, n]
    best = _choice(errors, counts)
    known_noise = 0.0 if noise is None else Y.shape[1] * noise**2
    closed = closed_form_errors(spectrum, Y, kept, counts, paces)
    ranking = _rank([(g, t) for g in kept for t in counts], errors, best, known_noise, closed, apart)
    plain = _quickest(ranking, identity())
    estimate = _noise(spectrum, Y, ranking[0]) if noise is None else noise
    diverging = [g for g in tried if g not in kept]
    return Suggestion(ranking, reason(spectrum, Y, ranking, plain, estimate, diverging), estimate, plain)


def _rank(
    named: Sequence[tuple[SpectralMap, int]],
    errors: Float[Tensor, "J n"],
    best: int,
    known_noise: float,
    closed: tuple[Float[Tensor, "M T"], Float[Tensor, "M T"]],
    apart: Float[Tensor, "J J"],
) -> list[Candidate]:
    """The candidates in the order of their predicted errors, the chosen one first."""
    mean, confidence = errors.mean(1), _confidence(errors)
    loo, gcv = (torch.nan_to_num(values, nan=math.inf).flatten().tolist() for values in closed)
    stands = distinct(apart, [best, *sorted(range(len(named)), key=lambda j: (named[j][1], j))], _SAME)
    return [
        Candidate(
            spectral_map=named[j][0],
            steps=named[j][1],
            predicted_error=max(float(mean[j]) - known_noise, 0.0),
            standard_error=float(errors[j].std() / errors.shape[1] ** 0.5),
            confidence=float(confidence[j]),
            leave_one_out=loo[j],
            gcv=gcv[j],
            same_as=None if stands[j] == j else named[stands[j]],
        )
        for j in [best, *(j for j in mean.argsort().tolist() if j != best)]
    ]


def _draws(n: int) -> int:
    """Of few points the draw of the folds is most of the prediction's noise, and more draws cost little."""
    return min(5, max(1, 1024 // n))


def _choice(errors: Float[Tensor, "J n"], counts: Sequence[int]) -> int:
    """The fewest steps among the smallest errors; identity (the first map), where it takes no more steps than those and
    loses no more than one standard error of the difference, point by point.
    """
    mean, T = errors.mean(1), len(counts)
    close = (mean <= (1 + _CLOSE) * mean.min()).nonzero()[:, 0].tolist()
    best: int = min(close, key=lambda j: (counts[j % T], float(mean[j])))
    plain = int(mean[: best % T + 1].argmin())  # counts ascend
    gain = errors[plain] - errors[best]
    return plain if float(gain.mean()) <= float(gain.std()) / len(gain) ** 0.5 else best


def _confidence(errors: Float[Tensor, "J n"]) -> Float[Tensor, "J"]:
    """Share of bootstrap resamples of the points in which each candidate is within 5 % of the best."""
    n = errors.shape[1]
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(n, (_RESAMPLES, n), generator=generator)
    counts = torch.stack([torch.bincount(d, minlength=n) for d in draws]).to(errors)
    resampled = errors @ counts.T / n
    return (resampled <= 1.05 * resampled.min(0).values).double().mean(1)


def _noise(spectrum: Spectrum, y: Tensor, best: Candidate) -> float:
    """sqrt(|(I - H) y|^2 / (C tr(I - H))): the residual per degree of freedom that is left (Wahba 1990)."""
    r = spectrum.resolved
    V, centred = spectrum.eigenvectors[:, :r], y - y.mean(0)
    left = 1 - filters(spectrum.eigenvalues[:r], spectrum.ratio(best.spectral_map)[:r], [best.steps])[0]
    projected = V.T @ centred
    outside = (centred.square().sum() - projected.square().sum()).clamp(min=0)
    squares = (left[:, None] * projected).square().sum() + outside
    degrees = left.sum() + spectrum.n - r
    return float((squares / (degrees.clamp(min=1) * y.shape[1])).sqrt())


def _tensor(name: str, given: object) -> Tensor:
    """A tensor as it is, an array in its own precision."""
    if isinstance(given, Tensor):
        return given
    try:
        return torch.as_tensor(np.ascontiguousarray(given))
    except (TypeError, ValueError) as error:
        raise InputError(f"The {name} is no array of numbers ({error}); give a tensor or a NumPy array.") from error


def _checked(
    given: Tensor | Spectrum, y: Tensor, noise: float | None, steps: int | None, max_points: int
) -> tuple[Tensor, Tensor]:
    if not isinstance(given, Spectrum) and (given.ndim != 2 or given.shape[0] != given.shape[1]):
        raise InputError(f"The kernel has shape {tuple(given.shape)}; it must be [n, n], on the training points.")
    n = given.n if isinstance(given, Spectrum) else len(given)
    if n < 20:
        raise InputError(f"{n} points are too few to choose a spectral map from; give at least 20.")
    if max_points < 20:
        raise InputError(f"max_points={max_points} is too few to choose a spectral map from; give at least 20.")
    if y.ndim not in (1, 2) or y.shape[0] != n or not bool(torch.isfinite(y).all()):
        raise InputError(f"y has shape {tuple(y.shape)}; it must be [{n}] or [{n}, C], with finite numbers.")
    if (noise is not None and not noise >= 0) or (steps is not None and steps < 1):
        raise InputError(f"noise={noise} must be at least 0 and steps={steps} at least 1; or leave them out.")
    kept = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:max_points].sort().values
    if isinstance(given, Spectrum):
        half = given.eigenvectors[kept] * (n * given.eigenvalues).sqrt()
        K = half @ half.T
    else:
        # In its own precision: a spectrum must know what its kernel's rounding was.
        K = given[kept][:, kept]
    return K, y[kept].to(K.device, torch.float64).reshape(len(kept), -1)
