"""The theory's claims, measured and drawn: consistency of the modified kernel, predicted dynamics, every map.

The claims about trained networks are experiments: docs/experiments.md.

OMP_NUM_THREADS=1 python scripts/benchmarks/theory.py consistency    # prints a table, draws docs/images/consistency.svg
OMP_NUM_THREADS=1 python scripts/benchmarks/theory.py dynamics       # docs/images/dynamics.svg
OMP_NUM_THREADS=1 python scripts/benchmarks/theory.py residuals      # docs/images/residuals.svg
OMP_NUM_THREADS=1 python scripts/benchmarks/theory.py maps           # docs/images/maps.svg
"""

import argparse
import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.polynomial import legendre
from torch import Tensor

from spectrain import plots, spectral_maps
from spectrain.kernels import empirical_ntk
from spectrain.regression import ModifiedSpectrumKernel
from spectrain.spectral_maps import SpectralMap, custom, flatten, identity, power
from spectrain.spectrum import Spectrum
from spectrain.spectrum.dynamics import predict_residual
from spectrain.spectrum.frequencies import energy_per_frequency
from spectrain.studies.descent import descend, first_modes
from spectrain.studies.two_layer import circle, even_angles, two_layer

IMAGES = Path(__file__).parents[2] / "docs" / "images"


def save(figure: Figure, name: str) -> None:
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})


def profile(u: Tensor) -> Tensor:
    """Two-layer ReLU NTK with bias, of the cosine between two points of a sphere."""
    angle = torch.acos(u.clamp(-1, 1))
    return (u + 1) * (math.pi - angle) / math.pi + (torch.sin(angle) + (math.pi - angle) * u) / math.pi


def kernel(x: Tensor, z: Tensor) -> Tensor:
    return profile(x @ z.T)


def on_sphere(n: int, dimension: int, seed: int) -> Tensor:
    x = torch.randn(n, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)


def circle_truth(z: Tensor, g: Callable[[Tensor], Tensor]) -> Tensor:
    """sum_kappa g(lambda_kappa) cos(kappa angle), the coefficients by FFT of the kernel's own profile."""
    theta = 2 * math.pi * torch.arange(2**14, dtype=torch.float64) / 2**14
    lam = torch.fft.rfft(profile(torch.cos(theta))).real[:300].clamp(min=0) / 2**14
    kappa = torch.arange(300, dtype=torch.float64)
    angle = torch.atan2(z[:, 1], z[:, 0])
    waves = torch.cat([torch.cos(angle[:, None] * kappa), torch.sin(angle[:, None] * kappa)], 1)
    return (waves * (torch.where(kappa == 0, 1.0, 2.0) * g(lam)).repeat(2)) @ waves.T


def sphere_truth(z: Tensor, g: Callable[[Tensor], Tensor]) -> Tensor:
    """sum_l g(lambda_l) (2 l + 1) P_l(x . z) (the addition theorem)."""
    nodes, weights = legendre.leggauss(2000)
    values = profile(torch.from_numpy(nodes)).numpy()
    lam = np.array([(weights * values * legendre.Legendre.basis(d)(nodes)).sum() / 2 for d in range(61)]).clip(0)
    series = g(torch.from_numpy(lam)).numpy() * (2 * np.arange(61) + 1)
    return torch.from_numpy(legendre.legval((z @ z.T).numpy(), series))


def circle_eigenvalue(number: int) -> float:
    theta = 2 * math.pi * torch.arange(2**14, dtype=torch.float64) / 2**14
    lam = torch.fft.rfft(profile(torch.cos(theta))).real[:50] / 2**14
    return float(torch.cat([lam[:1], lam[1:].repeat_interleave(2)]).sort(descending=True).values[number - 1])


def consistency() -> None:
    """Relative error on 300 unseen points against the analytic modified kernel: mean and deviation over samples."""
    lam_5 = circle_eigenvalue(5)
    cases = {
        "circle, lambda^1.5": (2, custom(torch.sqrt), "drop", circle_truth, lambda lam: lam**1.5),
        "circle, min(lambda, lambda_5)": (2, flatten(4), "keep", circle_truth, lambda lam: lam.clamp(max=lam_5)),
        "sphere, lambda^1.5": (3, custom(torch.sqrt), "drop", sphere_truth, lambda lam: lam**1.5),
    }
    sizes, mean = (100, 200, 400, 800, 1600), np.zeros((3, 5))
    print(f"| n | samples | {' | '.join(cases)} |\n|---|---|---|---|---|")
    for j, n in enumerate(sizes):
        seeds, cells = (40 if n <= 400 else 5), []
        for i, (d, g, tail, truth, new) in enumerate(cases.values()):
            z = on_sphere(300, d, 99)
            exact = truth(z, new)
            errors = []
            for seed in range(seeds):
                K = ModifiedSpectrumKernel(kernel, on_sphere(n, d, seed), g, tail=tail)(z)
                errors.append(float((K - exact).norm() / exact.norm()))
            mean[i, j] = np.mean(errors)
            cells.append(f"{mean[i, j]:.3f} +- {np.std(errors, ddof=1):.3f}")
        print(f"| {n} | {seeds} | {' | '.join(cells)} |", flush=True)
    names = [name.replace("lambda", "λ").replace("_5", "₅").replace("^1.5", "¹·⁵") for name in cases]
    save(plots.rate_figure(np.array(sizes), mean, names, "points n", "relative error, unseen points"), "consistency")


def dynamics() -> None:
    """Two frequencies on a circle: what the first kernel predicts, and what a wide network does.

    Descent without and with S, heavy ball, and minibatches of 16 of the 64 points: the mean residual over 8 draws.
    """
    angle = even_angles(64)
    x, y = circle(angle), torch.cos(angle) + torch.cos(6 * angle)
    spectrum = Spectrum.from_kernel(empirical_ntk(two_layer(2, 4096, 0), x).detach())
    steps = sorted({int(t) for t in np.logspace(0, 3, 31).round()})
    start = energy_per_frequency(y)[[1, 6]]
    cases = {  # map, momentum, batches
        "without S": (identity(), 0.0, 1),
        "flatten(14)": (flatten(14), 0.0, 1),
        "momentum .9": (identity(), 0.9, 1),
        "batches of 16, S": (flatten(14), 0.0, 4),
    }
    predicted, measured = [], []
    for g, momentum, batches in cases.values():
        eta = 0.2 / float((spectrum.ratio(g) * spectrum.eigenvalues).max())
        theory = predict_residual(spectrum, -y, g, eta, steps, momentum)
        draws = [trained(x, y, g, eta, momentum, batches, seed)[steps] for seed in range(8 if batches > 1 else 1)]
        for path, residuals in ((predicted, theory), (measured, torch.stack(draws).mean(0))):
            path.append([(energy_per_frequency(r)[[1, 6]] / start).tolist() for r in residuals])
    names = ["frequency 1", "frequency 6"]
    save(plots.decay_figure(np.array(steps), np.array(predicted), np.array(measured), names, list(cases)), "dynamics")


def trained(
    x: Tensor, y: Tensor, g: Callable, eta: float, momentum: float, batches: int, seed: int, most: int = 1000
) -> Tensor:
    """The residual [most + 1, n] of a network of 4,096 units, S of its first kernel, at steps 0 .. most."""
    network = two_layer(2, 4096, 0)
    S, _ = first_modes(network, x, g)
    optimizer = torch.optim.SGD(network.parameters(), lr=eta, momentum=momentum)
    generator, n = torch.Generator().manual_seed(seed), len(x)
    shift, path = network(x).detach()[:, 0], []
    for _ in range(most + 1):
        f = S.run(network, x)
        r = f.detach()[:, 0] - shift - y
        path.append(r)
        drawn = torch.randperm(n, generator=generator)[: n // batches]
        part = torch.zeros_like(r)
        part[drawn] = batches * r[drawn]  # the same mean as r, over draws
        optimizer.zero_grad()
        f.backward(part[:, None] / n)
        optimizer.step()
    return torch.stack(path)


def deviation(width: int, g: SpectralMap, share: float, seed: int, size: float = 1.0) -> Tensor:
    """[16]: how far a network's residual gets from (I - eta K S)^t r_0 with its own first K in 100 steps, per mode.

    The target has the part `size` in each of the first 16 modes; deviations are in units of that part.
    """
    modes, steps, x = 16, 100, circle(even_angles(64))
    network = two_layer(2, width, seed)
    spectrum = Spectrum.from_kernel(empirical_ntk(network, x).detach())
    V = spectrum.eigenvectors[:, :modes]
    y = size * V.sum(1)
    S, g_max = first_modes(network, x, g)
    eta = share / g_max
    theory = predict_residual(spectrum, -y, g, eta, list(range(steps + 1)))
    with torch.no_grad():
        shifted = network(x) + y[:, None]
    path = islice(descend(network, x, shifted, S, lambda _: eta), steps + 1)  # type: ignore[misc]
    parts = torch.stack([r[:, 0] for _, r in path]) - theory
    return (parts @ V).abs().amax(0) / size


def of_seeds(width: int, g: SpectralMap, share: float, size: float = 1.0) -> tuple[float, str]:
    """Of the worst mode, mean and deviation over five seeds (and of the median mode)."""
    found = torch.stack([deviation(width, g, share, seed, size) for seed in range(5)])
    worst, median = found.amax(1), found.median(1).values
    mean = float(worst.mean())
    return mean, f"{mean:.4f} +- {float(worst.std()):.4f} ({float(median.mean()):.4f})"


def residuals() -> None:
    """`deviation` against width, and at the largest width for smaller targets and shorter steps."""
    widths = (256, 1024, 4096, 16384)
    cases = {"S = I": (identity(), 0.5), "power(.5, 15)": (power(0.5, 15), 0.5), "flatten(15)": (flatten(15), 0.1)}
    found = [[of_seeds(width, *case) for case in cases.values()] for width in widths]
    print(f"| width | {' | '.join(cases)} |\n|---|---|---|---|")
    for width, row in zip(widths, found, strict=True):
        print(f"| {width:,} | {' | '.join(text for _, text in row)} |")
    others = {"half the target": (1, 0.5), "a quarter of it": (1, 0.25), "a quarter of the step": (0.25, 1)}
    for name, (step, size) in others.items():
        row = [of_seeds(widths[-1], g, step * share, size) for g, share in cases.values()]
        print(f"| {widths[-1]:,}, {name} | {' | '.join(text for _, text in row)} |", flush=True)
    mean = np.array([[value for value, _ in row] for row in found]).T
    save(plots.rate_figure(np.array(widths), mean, list(cases), "width", "largest deviation per mode"), "residuals")


def maps() -> None:
    """Every map of the library on the spectrum of the circle."""
    x = circle(even_angles(128))
    spectrum = Spectrum.from_kernel(kernel(x, x))
    shown = {
        "flatten(20)": flatten(20),
        "power(.5, 20)": power(0.5, 20),
        "raise_head(.5, 20)": spectral_maps.raise_head(0.5, 20),
        "ridge(1e-3)": spectral_maps.ridge(1e-3),
        "heat(1e-4)": spectral_maps.heat(1e-4),
        "sobolev(1, rank=20)": spectral_maps.sobolev(1.0, rank=20),
        "bandpass(9, 21)": spectral_maps.bandpass(9, 21),
    }
    ratios = np.stack([spectrum.ratio(g).numpy() for g in shown.values()])
    save(plots.maps_figure(spectrum.eigenvalues.numpy(), ratios, list(shown)), "maps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    calls = {"consistency": consistency, "dynamics": dynamics, "residuals": residuals, "maps": maps}
    parser.add_argument("what", choices=list(calls))
    calls[parser.parse_args().what]()


if __name__ == "__main__":
    main()
