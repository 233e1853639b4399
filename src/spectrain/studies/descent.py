"""Full-batch gradient descent with S on the gradient at the outputs: what the studies of the theory train with.

Letters: n points, C outputs. The loss is L = |f - y|^2 / (2 n), whose gradient at the outputs is r / n, r = f - y.
"""

from collections.abc import Callable, Iterator

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
    """Yield (t, r_t) for t = 0, 1, 2, ... without end, with w <- w - eta_t J^T S r / n in between.

    eta_t = rate(t), which may refresh S first. The caller stops by leaving its loop.
    """
    parameters = list(network.parameters())
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
