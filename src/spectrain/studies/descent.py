"""Full-batch gradient descent with S on the gradient at the outputs: what the studies of the theory train with.

Letters: n points, C outputs. The loss is L = |f - y|^2 / (2 n), whose gradient at the outputs is r / n, r = f - y.
"""

from collections.abc import Callable, Iterator
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.kernels import empirical_ntk
from spectrain.preconditioners import Preconditioner, SamplePreconditioner, largest_preconditioned_eigenvalue
from spectrain.spectral_maps import SpectralMap
from spectrain.spectrum import Spectrum

Rate = Callable[[int], float]


def descend(
    network: nn.Module,
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n C"],
    preconditioner: Preconditioner | None,
    rate: Rate,
) -> Iterator[tuple[int, Float[Tensor, "n C"]]]:
    """Yield (t, r_t) for t = 0, 1, 2, .. without end, with w <- w - eta_t J^T S r / n in between.

    eta_t = rate(t), which may refresh S first. The caller stops by leaving its loop.
    """
    parameters: list[Tensor] = list(network.parameters())
    t = 0
    while True:
        with torch.no_grad():
            r = network(x) - y
        yield t, r
        eta = rate(t)
        f = network(x) if preconditioner is None else preconditioner.run(network, x)
        gradients = torch.autograd.grad(f, parameters, r / len(x))
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-eta)
        t += 1


def measured_rate(
    network: nn.Module, x: Tensor, preconditioner: Preconditioner | None, share: float, rank: int, every: int
) -> Rate:
    """eta = share * 2 / lambda_max(K S / n), with S of the `rank` leading modes; both anew every `every` steps."""
    eta = 0.0

    def rate(t: int) -> float:
        nonlocal eta
        if t % every == 0:
            if preconditioner is not None:
                preconditioner.refresh(network, x, rank=rank, subset_size=len(x))
            eta = share * 2 / largest_preconditioned_eigenvalue(network, x, preconditioner)
        return eta

    return rate


def steps_to(
    network: nn.Module, x: Tensor, y: Tensor, preconditioner: Preconditioner | None, rate: Rate, goal: float, most: int
) -> int | None:
    """Steps until |r| <= goal |r_0|; None when `most` were not enough."""
    start = None
    for t, r in islice(descend(network, x, y, preconditioner, rate), most + 1):
        size = float(r.norm())
        start = start or size
        if size <= goal * start:
            return t
    return None


def first_modes(network: nn.Module, x: Tensor, spectral_map: SpectralMap) -> tuple[SamplePreconditioner, float]:
    """S of all modes of the kernel at the present weights, in float64, and g_max."""
    spectrum = Spectrum.from_kernel(empirical_ntk(network, x).detach())
    S = SamplePreconditioner(spectral_map)
    S.update(spectrum, dtype=torch.float64)
    return S, float((spectrum.ratio(spectral_map) * spectrum.eigenvalues).max())
