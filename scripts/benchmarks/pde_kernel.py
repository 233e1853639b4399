"""The kernel of a PDE's residuals: factored against vmap(jacrev), CPU seconds of one thread in one process.

    python scripts/benchmarks/pde_kernel.py            # 64x3 and 256x3, n = 1,020
    python scripts/benchmarks/pde_kernel.py --large    # 256x3, n = 8,192, with the peak memory; no Jacobian there
    python scripts/benchmarks/pde_kernel.py --many     # 64x2, n = 20,000: one Gauss-Newton step on the parameters' side
    python scripts/benchmarks/pde_kernel.py --sketched # 128x2, n = 12,000: three steps, by a sketch of K

Poisson-2D residuals (Laplacian inside, values on the boundary), float64, tanh. Each time is the best of `--repeats`,
the two taken in turn; the kernels are compared entry by entry.
"""

import argparse
import resource
import time
from collections.abc import Callable

import torch

from spectrain.models import mlp
from spectrain.optim import GaussNewton
from spectrain.pde import Problem, Residuals
from spectrain.pde.equations import Poisson


def poisson(width: int, depth: int, inside: int, boundary: int) -> Problem:
    torch.manual_seed(0)
    network = mlp(2, 1, width=width, depth=depth, activation="tanh", parameterization="standard").double()
    return Problem(Poisson(), network, points=inside, boundary_points=boundary)


def residuals(width: int, depth: int, inside: int, boundary: int) -> Residuals:
    problem = poisson(width, depth, inside, boundary)
    return problem.residuals(problem.draw(torch.Generator().manual_seed(0)))


def timed(make: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    begun = time.process_time()
    made = make()
    return time.process_time() - begun, made


def compare(width: int, depth: int, repeats: int) -> None:
    r = residuals(width, depth, 900, 120)
    ours, theirs, gap = [], [], 0.0
    for _ in range(repeats):
        seconds, K = timed(lambda: r.linearize().gram())
        ours.append(seconds)
        seconds, oracle = timed(lambda: r.explicit().gram())
        theirs.append(seconds)
        gap = max(gap, float((K - oracle).abs().max() / oracle.abs().max()))
    P = r.linearize().parameters
    print(
        f"{width}x{depth}, n = 1,020, P = {P:,}: factored {min(ours):.3f} s, vmap(jacrev) {min(theirs):.3f} s, "
        f"ratio {min(theirs) / min(ours):.1f}, largest difference {gap:.1e} of the largest entry"
    )


def large() -> None:
    r = residuals(256, 3, 7232, 960)
    seconds, K = timed(lambda: r.linearize().gram())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"256x3, n = {len(K):,}: {seconds:.1f} s, peak memory of the process {peak:.1f} GiB")


def many(width: int, inside: int, steps: int) -> None:
    problem = poisson(width, 2, inside, 1000)
    generator = torch.Generator().manual_seed(0)
    optimizer = GaussNewton(problem.parameters(), mu=1e-8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    P = sum(p.numel() for p in problem.parameters())
    for step in range(steps):
        r = problem.residuals(problem.draw(generator))
        begun = time.process_time()
        loss = float(optimizer.step(r))
        seconds, peak = time.process_time() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{width}x2, P = {P:,}, n = {inside + 1000:,}: step {step + 1} in {seconds:.1f} s, loss {loss:.2e} to "
            f"{float(r.loss().detach()):.2e}, peak memory of the process {peak:.1f} GiB, {before:.1f} GiB before",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--many", action="store_true")
    parser.add_argument("--sketched", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.large:
        large()
    elif options.many:
        many(64, 19_000, 1)
    elif options.sketched:
        many(128, 11_000, 3)
    else:
        for width in (64, 256):
            compare(width, 3, options.repeats)


if __name__ == "__main__":
    main()
