"""Does `suggest_spectral_map` predict what it says? Predicted against measured test errors, as Markdown tables.

    OMP_NUM_THREADS=1 python scripts/benchmarks/selection.py kernels      # preconditioned descent with a fixed kernel
    OMP_NUM_THREADS=1 python scripts/benchmarks/selection.py networks     # wide networks, really trained
    OMP_NUM_THREADS=1 python scripts/benchmarks/selection.py formulas     # held-out folds against LOO and GCV

Half of the points are for training, half for the test error; five random splits. A candidate's measured error is its
mean over the splits: with a hundred test points a single split's best candidate of thirty is a lucky one. Errors are
mean squares against the data as they are (noisy where noise was added). All data ship with scikit-learn and
scikit-image, or are computed. `networks` draws docs/images/selection.svg.
"""

import argparse
import copy
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from skimage import data as photographs
from skimage.transform import resize
from sklearn import datasets
from spectra import relu_ntk
from theory import save
from torch import Tensor

from spectrain import plots
from spectrain.kernels import empirical_ntk
from spectrain.models import mlp
from spectrain.selection import Suggestion, network_pilot, suggest_spectral_map
from spectrain.selection.descent import closed_form_errors, predict_descent
from spectrain.selection.suggestion import default_maps, default_steps
from spectrain.spectral_maps import SpectralMap, flatten, identity, power
from spectrain.spectrum import Spectrum

SPLITS = 5
HEADER = (
    "| data | rank correlation | over the best | over identity | over its best | single splits | suggestions | s |\n"
    "|---|---|---|---|---|---|---|---|"
)
Data = tuple[str, Tensor, Tensor]


def tables() -> Iterator[Data]:
    for name, load, classes in (
        ("diabetes", datasets.load_diabetes, False),
        ("digits (800)", datasets.load_digits, True),
        ("breast cancer", datasets.load_breast_cancer, True),
        ("wine", datasets.load_wine, True),
    ):
        loaded = load()
        x, y = loaded.data[:800], loaded.target[:800]
        x = (x - x.mean(0)) / x.std(0).clip(1e-9) if "digits" not in name else x / 8 - 1
        y = np.eye(int(y.max()) + 1)[y] if classes else ((y - y.mean()) / y.std())[:, None]
        yield name, torch.from_numpy(x), torch.from_numpy(y)


def images() -> Iterator[Data]:
    rng = np.random.default_rng(5)
    axis = torch.linspace(-1, 1, 32, dtype=torch.float64)
    for name in ("camera", "astronaut", "coffee"):
        image = getattr(photographs, name)() / 255
        image = resize(image if image.ndim == 2 else image.mean(-1), (32, 32), anti_aliasing=True)
        for noise in (0.0, 0.01, 0.05, 0.1):
            noisy = image + noise * rng.normal(size=image.shape)
            yield (
                f"{name}, noise {noise}",
                torch.cartesian_prod(axis, axis),
                torch.from_numpy(2 * noisy - 1).reshape(-1, 1),
            )


def signals() -> Iterator[Data]:
    rng = np.random.default_rng(6)
    t = torch.linspace(-1, 1, 400, dtype=torch.float64)[:, None]
    for name, y in (
        ("chirp", torch.sin(2 * torch.pi * (2 * t + 4 * t**2))),
        ("steps", torch.sign(torch.sin(9 * t)) + 0.5 * torch.sign(torch.sin(4 * t + 1))),
    ):
        for noise in (0.0, 0.1):
            yield f"{name}, noise {noise}", t, y + noise * torch.from_numpy(rng.normal(size=y.shape))


def split(n: int, seed: int) -> tuple[Tensor, Tensor]:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[: n // 2], order[n // 2 :]


def mean_square(f: Tensor, y: Tensor) -> Tensor:
    return (f - y).square().sum(-1).mean(-1)


Measured = dict[tuple[SpectralMap, int], float]


def row(name: str, splits: list[tuple[Suggestion, Measured]], seconds: float) -> str:
    """Of the suggestions: mean measured error over the smallest mean of one candidate, and over that of identity.

    Rank correlation of each split's predictions with the mean errors (in brackets: with the split's own). Single
    splits: the suggestion's error over the luckiest candidate's of the same split, mean and worst.
    """
    mean = mean_errors(splits)
    chosen = [m[s.spectral_map, s.steps] for s, m in splits]
    own = [c / min(m.values()) for c, (_, m) in zip(chosen, splits, strict=True)]
    plain = [m[identity(), s.plain.steps] for s, m in splits]
    best_plain = min(e for (g, _), e in mean.items() if g == identity())
    rho = np.mean([[correlation(s, mean), correlation(s, m)] for s, m in splits], 0)
    names = ", ".join(dict.fromkeys(f"{s.spectral_map!r} {s.steps}" for s, _ in splits))
    return (
        f"| {name} | {rho[0]:.2f} ({rho[1]:.2f}) | {np.mean(chosen) / min(mean.values()):.3f} | "
        f"{np.mean(chosen) / np.mean(plain):.3f} | {np.mean(chosen) / best_plain:.3f} | "
        f"{np.mean(own):.3f}, worst {max(own):.3f} | {names} | {seconds / len(splits):.1f} |"
    )


def mean_errors(splits: list[tuple[Suggestion, Measured]]) -> Measured:
    return {key: float(np.mean([m[key] for _, m in splits])) for key in splits[0][1]}


def correlation(s: Suggestion, errors: Measured) -> float:
    measured = [errors[c.spectral_map, c.steps] for c in s.ranking]
    return float(spearmanr([c.predicted_error for c in s.ranking], measured)[0])


def measure_kernel(K: Tensor, y: Tensor, train: Tensor, test: Tensor, s: Suggestion) -> Measured:
    maps = list(dict.fromkeys(c.spectral_map for c in s.ranking))
    steps = sorted({c.steps for c in s.ranking})
    spectrum = Spectrum.from_kernel(K[train][:, train])
    f = predict_descent(spectrum, K[test][:, train], y[train], maps, steps)
    errors = mean_square(f, y[test])
    return {(g, t): float(errors[i, j]) for i, g in enumerate(maps) for j, t in enumerate(steps)}


def kernels(limit: int | None, first: int) -> None:
    print(HEADER)
    for source in (tables, images, signals):
        for name, x, y in source():
            K = relu_ntk(x, x)
            splits, seconds = [], 0.0
            for seed in range(first, first + SPLITS):
                train, test = split(len(x), seed)
                start = time.process_time()
                s = suggest_spectral_map(K[train][:, train], y[train], steps=limit)
                seconds += time.process_time() - start
                splits.append((s, measure_kernel(K, y, train, test, s)))
            print(row(name, splits, seconds), flush=True)


def networks(width: int, piloted: bool, initialisations: int, first: int) -> None:
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
            for seed in range(first, first + SPLITS):
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
            measured = measure_kernel(K, y, train, test, s)
            maps, steps = default_maps(len(train)), default_steps(None)
            loo, gcv = closed_form_errors(Spectrum.from_kernel(K[train][:, train]), y[train], maps, steps)
            truth = [measured[g, t] for g in maps for t in steps]
            folds = {(c.spectral_map, c.steps): c.predicted_error for c in s.ranking}
            cells = []
            for predicted in (
                [folds[g, t] for g in maps for t in steps],
                loo.flatten().tolist(),
                gcv.flatten().tolist(),
            ):
                finite = np.nan_to_num(predicted, nan=1e300, posinf=1e300)
                cells.append(f"{spearmanr(finite, truth)[0]:.2f}, {truth[int(finite.argmin())] / min(truth):.3f}")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kernels", "networks", "formulas"])
    parser.add_argument("--steps", type=int, default=None, help="the largest number of steps (kernels)")
    parser.add_argument("--width", type=int, default=2048, help="of the networks' hidden layer")
    parser.add_argument("--without-pilot", action="store_true", help="the linearised prediction alone (networks)")
    parser.add_argument("--initialisations", type=int, default=5, help="whose kernels are averaged (networks)")
    parser.add_argument("--first-split", type=int, default=0, help=f"of {SPLITS} (kernels, networks)")
    options = parser.parse_args()
    calls = {
        "kernels": lambda: kernels(options.steps, options.first_split),
        "networks": lambda: networks(
            options.width, not options.without_pilot, options.initialisations, options.first_split
        ),
        "formulas": formulas,
    }
    calls[options.what]()


if __name__ == "__main__":
    main()
