"""Early-stopped preconditioned descent as a spectral filter, and what it predicts for points it has not seen.

Letters: n points, C outputs, T step counts, M maps, J = M T candidates, m held-out points. Eigenvalues are of K/n.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spectrain.spectral_maps import SpectralMap
from spectrain.spectrum import Spectrum


def filters(eigenvalues: Float[Tensor, "k"], ratio: Float[Tensor, "k"], steps: Sequence[float]) -> Float[Tensor, "T k"]:
    """f_i = 1 - (1 - g_i / g_max)^t: the share of mode i that t steps of size 1/g_max have learned.

    Half of the largest stable step size. Source: early stopping as a spectral filter, Yao, Rosasco and Caponnetto 2007.
    """
    g = eigenvalues * ratio
    # Below one in the last place, or the slowest rounding of log1p would be minus infinity times zero steps.
    rate = torch.log1p(-(g / g.max()).clamp(max=1 - 1e-16))
    return -torch.expm1(torch.tensor(steps, dtype=rate.dtype, device=rate.device)[:, None] * rate)


def predict_descent(
    spectrum: Spectrum,
    cross: Float[Tensor, "m n"],
    y: Float[Tensor, "n C"],
    maps: Sequence[SpectralMap],
    steps: Sequence[float],
    paces: Sequence[float] | None = None,
) -> Float[Tensor, "M T m C"]:
    """f_t(z) = k(z, X) sum_i f_i / (n lambda_i) v_i v_i^T (y - mean y) + mean y, for every map and number of steps.

    paces: what a step of each map is worth; one, unless given.

    This is exact for squared loss and a fixed kernel: w <- w - eta J^T S r from f_0 = 0 with the output's bias at
    mean y. Unresolved modes are left out: nothing can be said about them.
    Source: Geifman et al. 2024 (arXiv 2307.14531).
    """
    r = spectrum.resolved
    eigenvalues, V = spectrum.eigenvalues[:r], spectrum.eigenvectors[:, :r]
    mean = y.mean(0)
    projected = V.T @ (y - mean)
    extended = cross.to(V) @ V / (spectrum.n * eigenvalues)
    out = []
    for g, pace in zip(maps, paces or [1.0] * len(maps), strict=True):
        f = filters(eigenvalues, spectrum.ratio(g)[:r], [pace * t for t in steps])
        out.append(torch.einsum("mk,tk,kc->tmc", extended, f, projected))
    return torch.stack(out) + mean


@dataclass(frozen=True)
class Fold:
    """Points that are held out, the spectrum of the others' kernel, and cross = k(held, others)."""

    held: Int[Tensor, "m"]
    others: Int[Tensor, "n"]
    spectrum: Spectrum
    cross: Float[Tensor, "m n"]


def stratified_parts(y: Float[Tensor, "n C"], count: int, seed: int) -> list[Int[Tensor, "m"]]:
    """The points in `count` random parts whose targets are spread alike.

    In the order of the targets' first principal component, each `count` neighbours are dealt out to as many parts.
    Source: stratified cross-validation, Breiman et al. 1984; Kohavi 1995.
    """
    generator = torch.Generator().manual_seed(seed)
    centred = (y - y.mean(0)).cpu()
    component = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    along = centred @ component * component[component.abs().argmax()].sign()  # a singular vector's sign is chance
    order = torch.randperm(len(y), generator=generator)  # of points with equal targets
    order = order[along[order].argsort(stable=True)]
    dealt = [row[torch.randperm(len(row), generator=generator)] for row in order.split(min(count, len(y)))]
    return [torch.stack([row[j] for row in dealt if j < len(row)]) for j in range(len(dealt[0]))]


def split_folds(K: Float[Tensor, "n n"], y: Float[Tensor, "n C"], count: int = 10, draws: int = 1) -> list[Fold]:
    """The points in `count` stratified parts, each held out once, and that `draws` times over: one eigh per part."""
    n = K.shape[0]
    folds = []
    for seed in range(draws):
        for part in stratified_parts(y, count, seed):
            held = part.to(K.device)
            known = torch.ones(n, dtype=torch.bool, device=K.device)
            known[held] = False
            others = known.nonzero()[:, 0]
            folds.append(Fold(held, others, Spectrum.from_kernel(K[others][:, others]), K[held][:, others]))
    return folds


def held_out_errors(
    folds: Sequence[Fold],
    y: Float[Tensor, "n C"],
    maps: Sequence[SpectralMap],
    steps: Sequence[float],
    paces: Sequence[float] | None = None,
) -> tuple[Float[Tensor, "M T n"], Float[Tensor, "J J"]]:
    """Predicted from the folds that a point is not in, without training, and averaged over draws of the folds:

    the squared error at every point, and how far apart the predictions of the candidates are (`differences`).
    """
    errors = y.new_zeros(len(maps), len(steps), len(y))
    times = y.new_zeros(len(y))
    squares = y.new_zeros(len(maps) * len(steps), len(maps) * len(steps))
    for fold in folds:
        f = predict_descent(fold.spectrum, fold.cross, y[fold.others], maps, steps, paces)
        errors[:, :, fold.held] += (f - y[fold.held]).square().sum(-1)
        times[fold.held] += 1
        squares += len(fold.held) * differences(f.flatten(0, 1), y).square()
    return errors / times, (squares / times.sum()).sqrt()


def differences(f: Float[Tensor, "J m C"], y: Float[Tensor, "n C"]) -> Float[Tensor, "J J"]:
    """|f_a - f_b| / sqrt(m) of every two predictions, in units of the targets' deviation |y - mean y| / sqrt(n)."""
    mean = y.mean(0)
    flat = (f - mean).flatten(1)
    deviation = (y - mean).square().sum(1).mean().sqrt().clamp(min=torch.finfo(y.dtype).tiny)
    return torch.cdist(flat, flat) / (deviation * math.sqrt(f.shape[1]))


def distinct(apart: Float[Tensor, "J J"], order: Sequence[int], tolerance: float) -> dict[int, int]:
    """{candidate: the first in `order` that is within the tolerance of it}: itself, if it stands for a predictor."""
    close = (apart <= tolerance).tolist()
    kept: list[int] = []
    first = {}
    for j in order:
        same = next((i for i in kept if close[j][i]), j)
        if same == j:
            kept.append(j)
        first[j] = same
    return first


def closed_form_errors(
    spectrum: Spectrum,
    y: Float[Tensor, "n C"],
    maps: Sequence[SpectralMap],
    steps: Sequence[float],
    paces: Sequence[float] | None = None,
) -> tuple[Float[Tensor, "M T"], Float[Tensor, "M T"]]:
    """(leave-one-out, GCV) of the filter as a linear smoother H = V diag(f) V^T.

        leave-one-out = (1/n) sum_i |r_i / (1 - H_ii)|^2,    GCV = (1/n) |r|^2 / (1 - tr H / n)^2,    r = (I - H) y

    For ridge regression GCV is also what `eigenlearning` says of data: E_test = (kappa/ridge)^2 E_train, and
    ridge/kappa = 1 - sum_i L_i / n, where tr H estimates sum_i L_i. Sources: Allen 1974; Golub, Heath and Wahba 1979.

    Cheap (one eigendecomposition), but an approximation that only ridge-like filters make exact: 1 - f falls
    exponentially with lambda, so that late in training the few slowest modes decide alone. `held_out_errors` has no
    such defect, and is what a suggestion uses; docs/choosing_g.md compares them.
    """
    n = spectrum.n
    V = spectrum.eigenvectors
    centred = y - y.mean(0)
    projected = V.T @ centred
    squared = V.square()
    loo, gcv = [], []
    smallest = max(spectrum.noise_floor, float(spectrum.eigenvalues[0]) * 1e-18)
    for g, pace in zip(maps, paces or [1.0] * len(maps), strict=True):
        # The unresolved modes stand at the noise floor: never learned, and never a division by zero.
        left = 1 - filters(spectrum.eigenvalues.clamp(min=smallest), spectrum.ratio(g), [pace * t for t in steps])
        for row in left:
            residual = V @ (row[:, None] * projected) + (centred - V @ projected)
            loo.append((residual / (squared @ row)[:, None]).square().sum() / n)
            gcv.append(residual.square().sum() / n / row.mean() ** 2)
    shape = (len(maps), len(steps))
    return torch.stack(loo).reshape(shape), torch.stack(gcv).reshape(shape)
