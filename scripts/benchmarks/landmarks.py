"""How well modes from landmarks reproduce the full kernel's, by extension and by choice of landmarks.

    python scripts/benchmarks/landmarks.py                  # scattered points in 2, 3, 4 and 8 dimensions
    python scripts/benchmarks/landmarks.py --gaussian       # clustered instead of uniform points
    python scripts/benchmarks/landmarks.py --dimensions 3 --activation tanh

2,500 points in a cube, a network 3x256 after 100 steps of Adam, 576 landmarks, 64 modes. A number is the part
of the full kernel's leading 32 modes that lies in the span of the 64 extended ones, |U^T V|^2 / 32; 1 is perfect.
lambda_64 is the landmarks' over the full kernel's. CPU seconds are those of the extension alone: weights once, then
per refresh.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial import Delaunay, cKDTree
from torch import Tensor

from spectrain import Spectrum, empirical_ntk
from spectrain.models import mlp
from spectrain.preconditioners import orthonormal_columns
from spectrain.preconditioners.interpolation import ScatteredInterpolator
from spectrain.preconditioners.landmarks import Landmarks
from spectrain.preconditioners.placement import farthest_points, leverage_points

POINTS, LANDMARKS, MODES, MEASURED = 2500, 576, 64, 32


def linear(nodes: Tensor, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Barycentric weights in the Delaunay triangulation, the nearest landmark outside of it."""
    d, at = x.shape[1], x.double().numpy()
    mesh = Delaunay(nodes.double().numpy())
    cell = mesh.find_simplex(at)
    inside = cell >= 0
    transform = mesh.transform[cell[inside]]
    partial = np.einsum("nij,nj->ni", transform[:, :d], at[inside] - transform[:, d])
    weights, index = np.zeros((len(at), d + 1)), np.zeros((len(at), d + 1), dtype=int)
    weights[inside] = np.concatenate([partial, 1 - partial.sum(1, keepdims=True)], 1)
    index[inside] = mesh.simplices[cell[inside]]
    weights[~inside, 0], index[~inside, 0] = 1, cKDTree(mesh.points).query(at[~inside])[1]
    return lambda values: (torch.from_numpy(weights)[:, :, None] * values[torch.from_numpy(index)]).sum(1)


def inverse_distance(nodes: Tensor, x: Tensor, neighbours: int) -> Callable[[Tensor], Tensor]:
    distance, index = cKDTree(nodes.double().numpy()).query(x.double().numpy(), np.arange(1, neighbours + 1))
    weights = torch.from_numpy(1 / np.maximum(distance, 1e-9) ** 2)
    return lambda values: (weights[:, :, None] * values[torch.from_numpy(index)]).sum(1) / weights.sum(1, keepdim=True)


def kept(values: Tensor, full: Spectrum) -> float:
    overlap = orthonormal_columns(values).T @ full.eigenvectors[:, :MEASURED]
    return float(overlap.square().sum() / MEASURED)


def trained(d: int, activation: str, gaussian: bool) -> tuple[torch.nn.Module, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(POINTS, d) if gaussian else 2 * torch.rand(POINTS, d) - 1
    network = mlp(d, 1, width=256, depth=3, activation=activation, parameterization="standard")
    y = torch.sin(4 * x[:, :1]) * torch.cos(3 * x[:, -1:])
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(100):
        optimizer.zero_grad()
        (network(x) - y).square().mean().backward()
        optimizer.step()
    return network, x


def compare(d: int, activation: str, gaussian: bool) -> None:
    network, x = trained(d, activation, gaussian)
    full = Spectrum.from_kernel(empirical_ntk(network, x), rank=MODES)
    generator = torch.Generator().manual_seed(1)
    chosen = {
        "random": torch.randperm(POINTS, generator=generator)[:LANDMARKS],
        "farthest": farthest_points(x, LANDMARKS, generator),
        "leverage": leverage_points(x, LANDMARKS, generator),
    }
    for name, rows in chosen.items():
        landmarks = Landmarks(x[rows], "nystrom")
        spectrum = landmarks.spectrum(network, MODES)
        begun = time.process_time()
        row = {"nystrom": kept(landmarks.extend(spectrum, x, network).eigenvectors, full)}
        seconds = [time.process_time() - begun]
        begun = time.process_time()
        interpolate = ScatteredInterpolator(landmarks.points, x)
        seconds.append(time.process_time() - begun)
        begun = time.process_time()
        row["interpolate"] = kept(interpolate(spectrum.eigenvectors), full)
        seconds.append(time.process_time() - begun)
        if d <= 4:
            row["linear"] = kept(linear(landmarks.points, x)(spectrum.eigenvectors), full)
        for neighbours, label in ((2 * d + 2, "inverse distance"), (1, "nearest")):
            row[label] = kept(inverse_distance(landmarks.points, x, neighbours)(spectrum.eigenvectors), full)
        values = spectrum.eigenvalues[-1] / full.eigenvalues[-1]
        print(
            f"| {d} | {name} | lambda_64 {values:.2f} | "
            + " | ".join(f"{label} {value:.3f}" for label, value in row.items())
            + f" | nystrom {seconds[0]:.2f} s, interpolate {seconds[1]:.2f} s once and {seconds[2]:.3f} s |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", nargs="+", type=int, default=[2, 3, 4, 8])
    parser.add_argument("--activation", default="relu")
    parser.add_argument("--gaussian", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for d in args.dimensions:
        compare(d, args.activation, args.gaussian)


if __name__ == "__main__":
    main()
