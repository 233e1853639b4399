"""Solvers, Nystroem extension and regression: time (CPU seconds, one thread) and accuracy, as Markdown tables.

OMP_NUM_THREADS=1 python scripts/benchmarks/spectra.py solvers --n 4096
OMP_NUM_THREADS=1 python scripts/benchmarks/spectra.py refresh
OMP_NUM_THREADS=1 python scripts/benchmarks/spectra.py nystroem
OMP_NUM_THREADS=1 python scripts/benchmarks/spectra.py regression --n 8000
"""

import argparse
import importlib.util
import math
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from sklearn.kernel_approximation import Nystroem
from torch import Tensor

from spectrain.kernels import empirical_ntk
from spectrain.models import mlp
from spectrain.regression import KernelRegression, ModifiedSpectrumKernel
from spectrain.regression.callables import rbf
from spectrain.spectral_maps import identity
from spectrain.spectrum import Spectrum
from spectrain.spectrum.lanczos import lanczos_top_k


def timed(f: Callable[[], object]) -> tuple[object, float]:
    start = time.process_time()
    result = f()
    return result, time.process_time() - start


def relu_ntk(x: Tensor, z: Tensor, bias: float = 0.1, depth: int = 2) -> Tensor:
    """Infinite-width ReLU NTK: a kernel with a realistic, slowly falling spectrum."""
    d = x.shape[1]
    S, a, b = x @ z.T / d + bias, x.square().sum(1) / d + bias, z.square().sum(1) / d + bias
    K = S.clone()
    for _ in range(depth):
        norm = (a[:, None] * b).sqrt()
        cosine = (S / norm).clamp(-1, 1)
        angle = torch.acos(cosine)
        S = norm * (torch.sin(angle) + (math.pi - angle) * cosine) / math.pi + bias
        K = K * (math.pi - angle) / math.pi + S
        a, b = a + bias, b + bias
    return K


def grid(side: int) -> Tensor:
    axis = torch.linspace(-1, 1, side, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis)


def solvers(n: int, k: int) -> None:
    K = relu_ntk(grid(int(n**0.5)), grid(int(n**0.5)))
    n = len(K)
    drift = torch.exp(0.05 * torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    moved = drift[:, None] * K * drift
    truth, dense_time = timed(lambda: torch.linalg.eigh(moved / n))
    exact = truth[0].flip(0)[:k]  # type: ignore[index]
    old = Spectrum.from_kernel(K, k).eigenvectors
    start = torch.randn(n, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    array = moved.numpy()

    def lobpcg() -> tuple[Tensor, Tensor]:
        values, vectors = torch.lobpcg(moved / n, k=k, X=start.clone(), niter=40, tol=1e-7)
        return values, vectors

    def kernel_pca() -> tuple[Tensor, Tensor]:
        # KernelPCA centres the kernel; its randomized solver alone is what is compared.
        from sklearn.utils.extmath import _randomized_eigsh

        values, vectors = _randomized_eigsh(array / n, n_components=k, random_state=0, selection="module")
        return torch.from_numpy(values), torch.from_numpy(vectors)

    def ours(**options: object) -> Callable[[], tuple[Tensor, Tensor]]:
        def solve() -> tuple[Tensor, Tensor]:
            s = Spectrum.from_kernel(**{"K": moved, "rank": k, **options})  # type: ignore[arg-type]
            return s.eigenvalues, s.eigenvectors

        return solve

    def lanczos() -> tuple[Tensor, Tensor]:
        pairs = lanczos_top_k(moved, k)
        return pairs.values / n, pairs.vectors

    def scipy_eigsh() -> tuple[Tensor, Tensor]:
        values, vectors = eigsh(array / n, k=k, tol=1e-7, v0=np.ones(n))
        return torch.from_numpy(values.copy()).flip(0), torch.from_numpy(vectors.copy()).flip(1)

    single = moved.float()
    methods = {
        "spectrain, warm, float32": ours(K=single, init=old),
        "spectrain, warm": ours(init=old),
        "spectrain, cold, float32": ours(K=single),
        "spectrain, cold": ours(),
        "spectrain, Lanczos": lanczos,
        "scipy eigsh": scipy_eigsh,
        "scikit-learn randomized": kernel_pca,
        "torch.lobpcg (40 iterations)": lobpcg,
    }
    print(f"n = {n}, k = {k}; torch.linalg.eigh: {dense_time:.2f} s\n")
    print("| solver | CPU s | against eigh | largest residual / lambda_1 | largest relative eigenvalue error |")
    print("|---|---|---|---|---|")
    for name, method in methods.items():
        (values, V), seconds = timed(method)  # type: ignore[misc]
        residual = (moved @ V / n - V * values).norm(dim=0).max() / exact[0]
        error = ((values - exact).abs() / exact).max()
        print(f"| {name} | {seconds:.2f} | {dense_time / seconds:.0f}x | {residual:.1e} | {error:.1e} |", flush=True)


def refresh(k: int) -> None:
    """What a refresh every 20 steps costs: the kernel of a network in training on 1,024 landmarks."""
    torch.manual_seed(0)
    x = grid(32).float()
    y = torch.sin(9 * x[:, :1]) * torch.cos(7 * x[:, 1:])
    net = mlp(2, 1, width=256, depth=3, parameterization="standard")
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    spectrum: Spectrum | None = None
    print("| step | eigh s | warm s | largest residual / lambda_k | resolved |\n|---|---|---|---|---|")
    for step in range(101):
        if step % 20 == 0:
            K = empirical_ntk(net, x).detach()
            _, dense_time = timed(lambda K=K: Spectrum.from_kernel(K))
            init = None if spectrum is None else spectrum.eigenvectors
            spectrum, seconds = timed(lambda K=K, init=init: Spectrum.from_kernel(K, k, init=init))  # type: ignore[assignment]
            worst = spectrum.residual_norms.max() / spectrum.eigenvalues[-1]  # type: ignore[union-attr]
            print(f"| {step} | {dense_time:.2f} | {seconds:.3f} | {worst:.1e} | {spectrum.resolved} |", flush=True)  # type: ignore[union-attr]
        optimizer.zero_grad()
        (net(x) - y).square().mean().backward()
        optimizer.step()


def nystroem() -> None:
    """The plain kernel from m = 300 of 3,000 points: ours (tail dropped), scikit-learn's and GPyTorch's.

    GPyTorch is no dependency: its row appears where it is installed.
    """
    x = torch.randn(3000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = rbf(x, x)
    methods: dict[str, Callable[[], Tensor]] = {
        "spectrain": lambda: ModifiedSpectrumKernel(rbf, x[:300], identity(), tail="drop")(x),
        "scikit-learn": lambda: scikit_learn_nystroem(x),
    }
    if importlib.util.find_spec("gpytorch"):
        methods["spectrain, GPyTorch's kernel"] = lambda: ModifiedSpectrumKernel(
            gpytorch_rbf(x), x[:300], identity(), tail="drop"
        )(x)
        methods["GPyTorch"] = lambda: gpytorch_nystroem(x)
    print("| Nystroem, m = 300 of 3,000 | CPU s | relative error |\n|---|---|---|")
    for name, method in methods.items():
        value, seconds = timed(method)
        print(f"| {name} | {seconds:.2f} | {float((value - truth).norm() / truth.norm()):.2e} |")  # type: ignore[operator]


def scikit_learn_nystroem(x: Tensor) -> Tensor:
    """Its sample is its own draw of 300 points."""
    features = Nystroem(gamma=0.2, n_components=300, random_state=0).fit_transform(x.numpy())
    return torch.from_numpy(features @ features.T)


def gpytorch_rbf(x: Tensor) -> Callable:
    """exp(-|x - z|^2 / d), as `rbf`."""
    import gpytorch

    kernel = gpytorch.kernels.RBFKernel().double()
    kernel.lengthscale = (x.shape[1] / 2) ** 0.5
    return kernel


def gpytorch_nystroem(x: Tensor) -> Tensor:
    """k(x, Z) k(Z, Z)^-1 k(Z, x), its kernel of sparse Gaussian processes without their exact diagonal; Z as ours."""
    import gpytorch

    likelihood = gpytorch.likelihoods.GaussianLikelihood()
    kernel = gpytorch.kernels.InducingPointKernel(
        gpytorch_rbf(x), inducing_points=x[:300].clone(), likelihood=likelihood
    ).eval()
    with torch.no_grad(), gpytorch.settings.sgpr_diagonal_correction(False):
        return kernel(x, x).to_dense()


def regression(n: int) -> None:
    x = torch.randn(n, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.sin(x[:, 0]) + x[:, 1]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    _, seconds = timed(lambda: KernelRegression(ridge=1e-6).fit(x, y))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"n = {n}: {seconds:.1f} CPU s, {peak - before:.2f} GiB (one matrix: {8 * n * n / 2**30:.2f} GiB)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["solvers", "refresh", "nystroem", "regression"])
    parser.add_argument("--n", type=int, default=4096)
    parser.add_argument("--k", type=int, default=64)
    options = parser.parse_args()
    calls = {
        "solvers": lambda: solvers(options.n, options.k),
        "refresh": lambda: refresh(options.k),
        "nystroem": nystroem,
        "regression": lambda: regression(options.n),
    }
    calls[options.what]()


if __name__ == "__main__":
    main()
