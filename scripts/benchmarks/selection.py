"""Does `suggest_spectral_map` predict what it says? Predicted against measured test errors, as Markdown tables.

    OMP_NUM_THREADS=1 python scripts/benchmarks/selection.py kernels      # preconditioned descent with a fixed kernel
    OMP_NUM_THREADS=1 python scripts/benchmarks/selection.py networks     # wide networks, really trained
    OMP_NUM_THREADS=1 python scripts/benchmarks/selection.py formulas     # held-out folds against LOO and GCV

Half of the points are for training, half for the test error, on random splits. A candidate's measured error is its mean
over the splits: with a hundred test points a single split's best candidate of thirty is a lucky one, and their order is
chance. Errors are mean squares against the data as they are (noisy where noise was added). All data ship with
scikit-learn and scikit-image, or are computed. `networks` draws docs/images/selection.svg.
"""

import argparse
import copy
import time
from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from shipped_data import images, signals, tables
from spectra import relu_ntk
from theory import save
from torch import Tensor

from spectrain import plots
from spectrain.kernels import empirical_ntk
from spectrain.models import mlp
from spectrain.selection import Suggestion, network_pilot, suggest_spectral_map
from spectrain.selection.descent import differences, distinct, predict_descent
from spectrain.spectral_maps import SpectralMap, flatten, identity, power
from spectrain.spectrum import Spectrum

HEADER = (
    "| data | rank correlation | halves | pairs | over the best | over identity | over its best | single splits "
    "| suggestions | s |\n|---|---|---|---|---|---|---|---|---|---|"
)
# Predictions this close count as one predictor (the first: only if they are equal to the last digit).
SAME = [0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2]


def split(n: int, seed: int) -> tuple[Tensor, Tensor]:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[: n // 2], order[n // 2 :]


def mean_square(f: Tensor, y: Tensor) -> Tensor:
    return (f - y).square().sum(-1).mean(-1)


Measured = dict[tuple[SpectralMap, int], float]


def row(name: str, splits: list[tuple[Suggestion, Measured]], seconds: float) -> str:
    """How well the order is predicted (`agreement`), and of the suggestions: mean measured error over the smallest mean
    of one candidate, and over that of identity. Single splits: over the luckiest candidate of the same split, mean and
    worst.
    """
    mean = mean_errors(splits)
    chosen = [m[s.spectral_map, s.steps] for s, m in splits]
    own = [c / min(m.values()) for c, (_, m) in zip(chosen, splits, strict=True)]
    plain = [m[identity(), s.plain.steps] for s, m in splits]
    best_plain = min(e for (g, _), e in mean.items() if g == identity())
    names = ", ".join(dict.fromkeys(f"{s.spectral_map!r} {s.steps}" for s, _ in splits))
    return (
        f"| {name} | {agreement(splits)} | {np.mean(chosen) / min(mean.values()):.3f} | "
        f"{np.mean(chosen) / np.mean(plain):.3f} | {np.mean(chosen) / best_plain:.3f} | "
        f"{np.mean(own):.3f}, worst {max(own):.3f} | {names} | {seconds / len(splits):.1f} |"
    )


def mean_errors(splits: list[tuple[Suggestion, Measured]]) -> Measured:
    return {key: float(np.mean([m[key] for _, m in splits])) for key in splits[0][1]}


def agreement(splits: list[tuple[Suggestion, Measured]]) -> str:
    """Three columns.

    Rank correlation of one split's predictions with the mean measured errors, over the candidates that are different
    predictors (`Suggestion.distinct`); in brackets, over all their names, plain and with errors within half a percent
    as equal.
    Halves: rank correlation of the mean errors of half of the splits with those of the others, which is what the
    measurement agrees with itself. Pairs: of the pairs of candidates whose mean errors are two standard errors apart,
    the share that one split's predictions order so; in brackets, how many of all pairs these are.
    """
    keys = list(splits[0][1])
    ranked = [{(c.spectral_map, c.steps): c.predicted_error for c in s.ranking} for s, _ in splits]
    keys = [key for key in keys if any(key in r for r in ranked)]
    predicted = np.array([[r.get(key, np.nan) for key in keys] for r in ranked])
    measured = np.array([[m[key] for key in keys] for _, m in splits])
    counted = [{(c.spectral_map, c.steps) for c in s.distinct} for s, _ in splits]
    once = [np.where([k in names for k in keys], row, np.nan) for names, row in zip(counted, predicted, strict=True)]
    single = [correlation(row, measured.mean(0)) for row in once]
    each = [correlation(row, measured.mean(0)) for row in predicted]
    merged = [correlation(levels(row), levels(measured.mean(0))) for row in predicted]
    orders = [np.random.default_rng(i).permutation(len(splits)) for i in range(20)]
    halves = [np.array_split(measured[order], 2) for order in orders]
    itself = [correlation(a.mean(0), b.mean(0)) for a, b in halves]
    one, two = np.triu_indices(len(keys), 1)
    with np.errstate(invalid="ignore"):  # a network that diverged has an infinite error
        apart = measured[:, one] - measured[:, two]
        resolved = np.abs(apart.mean(0)) > 2 * apart.std(0, ddof=1) / len(splits) ** 0.5
        asked = (predicted[:, one] - predicted[:, two])[:, resolved]
    right = np.sign(asked) == np.sign(apart.mean(0)[resolved])
    return (
        f"{np.mean(single):.2f} ({np.mean(each):.2f}; {np.mean(merged):.2f}) | {np.mean(itself):.2f} | "
        f"{right[~np.isnan(asked)].mean():.2f} ({resolved.mean():.0%})"
    )


def levels(errors: np.ndarray) -> np.ndarray:
    """The numbers of the steps of half a percent that errors are on."""
    return np.round(np.log(errors) / 0.005)


def correlation(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Spearman's, over the candidates that were ranked."""
    known = ~np.isnan(predicted)
    return float(spearmanr(predicted[known], measured[known])[0])


def measure_kernel(K: Tensor, y: Tensor, train: Tensor, test: Tensor, s: Suggestion) -> tuple[Measured, np.ndarray]:
    """The errors at the test points, and how far apart the predictions there are: in one order on every split."""
    maps = sorted({c.spectral_map for c in s.ranking}, key=repr)
    steps = sorted({c.steps for c in s.ranking})
    spectrum = Spectrum.from_kernel(K[train][:, train])
    f = predict_descent(spectrum, K[test][:, train], y[train], maps, steps).flatten(0, 1)
    errors = mean_square(f, y[test]).tolist()
    names = [(g, t) for g in maps for t in steps]
    return dict(zip(names, errors, strict=True)), differences(f, y[train]).numpy()


def kernels(limit: int | None, seeds: list[int]) -> None:
    print(HEADER)
    tolerances = []
    for source in (tables, images, signals):
        for name, x, y in source():
            K = relu_ntk(x, x)
            splits, apart, seconds = [], [], 0.0
            for seed in seeds:
                train, test = split(len(x), seed)
                start = time.process_time()
                s = suggest_spectral_map(K[train][:, train], y[train], steps=limit)
                seconds += time.process_time() - start
                measured, differ = measure_kernel(K, y, train, test, s)
                splits.append((s, measured))
                apart.append(differ)
            print(row(name, splits, seconds), flush=True)
            tolerances.append(tolerance_row(name, splits, np.sqrt(np.square(apart).mean(0)), y))
    print(f"\n| data | can be measured | {' | '.join(f'{t:g}' for t in SAME)} |\n|{'---|' * (len(SAME) + 2)}")
    print("\n".join(tolerances))


def tolerance_row(name: str, splits: list[tuple[Suggestion, Measured]], apart: np.ndarray, y: Tensor) -> str:
    """Rank correlation over the predictors that are further apart at the test points than each tolerance, and their
    number; before that, the difference of predictions that the measured errors can tell.

    |E_a - E_b| <= |f_a - f_b| (|r_a| + |r_b|) / m = 2 d sqrt(V E), so that it is se(E) / (2 sqrt(V E)): d in units of
    the targets' deviation sqrt(V), se the standard error of the mean over splits. The smallest of all candidates.
    """
    names = list(splits[0][1])
    measured = np.array([list(m.values()) for _, m in splits])
    mean, error = measured.mean(0), measured.std(0, ddof=1) / len(splits) ** 0.5
    variance = float((y - y.mean(0)).square().sum(1).mean())
    cells = [f"{(error / (2 * np.sqrt(variance * mean))).min():.1e}"]
    ranked = [{(c.spectral_map, c.steps): c.predicted_error for c in s.ranking} for s, _ in splits]
    order = sorted(range(len(names)), key=lambda j: names[j][1])
    for tolerance in SAME:
        kept = [j for j, first in distinct(torch.from_numpy(apart), order, tolerance).items() if j == first]
        each = [correlation(np.array([r[names[j]] for j in kept]), mean[kept]) for r in ranked]
        cells.append(f"{np.mean(each):.2f} ({len(kept)})")
    return f"| {name} | {' | '.join(cells)} |"


def networks(width: int, piloted: bool, initialisations: int, seeds: list[int]) -> None:
    """The candidates that 100 steps can afford, trained; the kernel is the mean of networks' own at the start."""
    maps: list[SpectralMap] = [identity(), power(0.5, 16), power(0.5, 64), flatten(4), flatten(16), flatten(64)]
    steps = [1, 3, 10, 30, 100]
    drawn = []
    print(HEADER)
    for source in (tables, images, signals):
        for name, x, y in source():
            if any(level in name for level in ("0.01", "0.05")):
                continue
            splits, seconds = [], 0.0
            for seed in seeds:
                train, test = split(len(x), seed)
                keep = train[:200]
                affordable = [g for g in maps if getattr(g, "rank", 0) < 0.8 * len(keep)]
                nets = [two_layers(x, y, width, seed + 100 * i) for i in range(initialisations)]
                start = time.process_time()
                kernels = [empirical_ntk(net, x[keep].float()).detach() for net in nets]
                pilot = network_pilot(nets[0], x[keep].float(), y[keep]) if piloted else None
                s = suggest_spectral_map(torch.stack(kernels).mean(0), y[keep], steps=100, maps=affordable, pilot=pilot)
                seconds += time.process_time() - start
                measured = {}
                for g in affordable:
                    f = train_network(nets[0], x[keep], y[keep], x[test], g, steps)
                    errors = {t: float(mean_square(f[t].double(), y[test])) if t in f else np.inf for t in steps}
                    measured.update({(g, t): np.nan_to_num(e, nan=np.inf) for t, e in errors.items()})
                splits.append((s, measured))
            print(row(name, splits, seconds), flush=True)
            drawn.append((source.__name__, splits))
    save(prediction_figure(drawn), "selection")


def prediction_figure(drawn: list[tuple[str, list[tuple[Suggestion, Measured]]]]) -> Figure:
    """Every candidate of the first split of every data set, and the suggestions of all splits."""
    candidates, chosen = [], []
    for kind, splits in drawn:
        mean = mean_errors(splits)
        rows = [(c.predicted_error, mean[c.spectral_map, c.steps]) for c in splits[0][0].ranking]
        candidates += [(kind, *r) for r in rows if np.isfinite(r).all()]
        chosen += [(s.best.predicted_error, mean[s.spectral_map, s.steps]) for s, _ in splits]
    kinds, predicted, measured = zip(*candidates, strict=True)
    return plots.prediction_figure(np.array(predicted), np.array(measured), list(kinds), np.array(chosen))


def two_layers(x: Tensor, y: Tensor, width: int, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return mlp(x.shape[1], y.shape[1], width=width, depth=1, bias_scale=0.5)


def train_network(
    initial: torch.nn.Module, x: Tensor, y: Tensor, z: Tensor, g: Callable, steps: list[int]
) -> dict[int, Tensor]:
    """w <- w - eta J^T S r / n on f(w) - f(w_0) + mean y, S refreshed every 10 steps; outputs on z after `steps`.

    What is left out had diverged.
    """
    net = copy.deepcopy(initial)
    x, y, z = x.float(), y.float(), z.float()
    with torch.no_grad():
        f_0, z_0 = net(x) - y.mean(0), net(z) - y.mean(0)
    parameters, out = list(net.parameters()), {}
    for step in range(1, max(steps) + 1):
        if step % 10 == 1:
            spectrum = Spectrum.from_kernel(empirical_ntk(net, x).detach())
            ratio = spectrum.ratio(g)
            eta = 1 / float((ratio * spectrum.eigenvalues).max())
            V, d = spectrum.eigenvectors.float(), (1 - ratio)[:, None].float()
        f = net(x)
        r = (f - f_0 - y).detach()
        if not float(r.square().mean()) < 1e6:
            break
        gradients = torch.autograd.grad(f, parameters, (r - V @ (d * (V.T @ r))) / len(x))
        with torch.no_grad():
            for p, gradient in zip(parameters, gradients, strict=True):
                p -= eta * gradient
            if step in steps:
                out[step] = net(z) - z_0
    return out


def formulas() -> None:
    """Rank correlation and regret of three predictors of the same candidates."""
    print("| data | folds | leave-one-out | GCV |\n|---|---|---|---|")
    for source in (tables, images, signals):
        for name, x, y in source():
            K = relu_ntk(x, x)
            train, test = split(len(x), 0)
            s = suggest_spectral_map(K[train][:, train], y[train])
            measured, _ = measure_kernel(K, y, train, test, s)
            truth = [measured[c.spectral_map, c.steps] for c in s.distinct]
            cells = []
            for predictor in ("predicted_error", "leave_one_out", "gcv"):
                predicted = np.array([getattr(c, predictor) for c in s.distinct])
                chosen = truth[int(predicted.argmin())] / min(measured.values())
                cells.append(f"{spearmanr(predicted, truth)[0]:.2f}, {chosen:.3f}")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kernels", "networks", "formulas"])
    parser.add_argument("--steps", type=int, default=None, help="the largest number of steps (kernels)")
    parser.add_argument("--width", type=int, default=2048, help="of the networks' hidden layer")
    parser.add_argument("--without-pilot", action="store_true", help="the linearised prediction alone (networks)")
    parser.add_argument("--initialisations", type=int, default=5, help="whose kernels are averaged (networks)")
    parser.add_argument("--splits", type=int, nargs="+", default=list(range(5)), help="their seeds (kernels, networks)")
    options = parser.parse_args()
    calls = {
        "kernels": lambda: kernels(options.steps, options.splits),
        "networks": lambda: networks(options.width, not options.without_pilot, options.initialisations, options.splits),
        "formulas": formulas,
    }
    calls[options.what]()


if __name__ == "__main__":
    main()
