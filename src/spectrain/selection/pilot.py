"""A few real steps of the network itself: does a map's S hold until its refresh, and how much is a step worth?

Letters: n points, C outputs, r modes that the map touches. Eigenvalues are of K/n.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.kernels import empirical_ntk
from spectrain.selection.descent import filters
from spectrain.spectral_maps import SpectralMap
from spectrain.spectrum import Spectrum


@dataclass(frozen=True)
class Pilot:
    """What steps of size 1/g_max with S of the first kernel did, against what that kernel predicts.

    growth = lambda_max(S^1/2 K_t S^1/2 / n) / g_max, K_t the kernel after the steps: 1 while S fits, and from 2 on a
    mode grows at every step. pace in [0, 1]: the share of a predicted step that a real one is worth.
    """

    growth: float
    pace: float

    @property
    def stable(self) -> bool:
        """Gradient descent with step size eta converges while eta lambda_max < 2 (Cohen et al. 2021, 2103.00065)."""
        return self.growth < 2 and self.pace > 0


def network_pilot(
    network: nn.Module, x: Any, y: Float[Tensor, "n C"], held: int = 10
) -> Callable[[SpectralMap], Pilot]:
    """g -> Pilot of `held` steps, the number for which S will be held between refreshes; `network` is left as it is.

    w <- w - J^T S r / (n g_max) from the present weights on f(w) - f(w_0) + mean y, S that of the first kernel. The
    pace is t / held, where the first kernel predicts after t steps the training error that was measured after `held`.
    Training error alone is looked at: the errors that a choice is made by stay those of points not trained on.
    Sources: growth, the edge of stability of Cohen et al. 2021 (2103.00065) for K S; the pace is this project's own.
    """
    network = copy.deepcopy(network).eval()  # dropout and batch norm have no kernel in training mode
    spectrum = Spectrum.from_kernel(empirical_ntk(network, x).detach())
    y = y.to(spectrum.eigenvectors)

    def run(g: SpectralMap) -> Pilot:
        ratio = spectrum.ratio(g)
        touched = (ratio != 1).nonzero()[:, 0]
        V, ratio_r = spectrum.eigenvectors[:, touched], ratio[touched, None]
        g_max = float((ratio * spectrum.eigenvalues).max())
        trained, residual = _descend(copy.deepcopy(network), x, y, V * (1 - ratio_r).T, V, 1 / g_max, held)
        if not bool(torch.isfinite(residual).all()):
            return Pilot(math.inf, 0.0)
        K = empirical_ntk(trained, x).detach().double()
        half = V * (1 - ratio_r.sqrt()).T  # S^1/2 = I - half V^T
        K = K - half @ (V.T @ K)
        K = K - (K @ V) @ half.T
        growth = float(Spectrum.from_kernel((K + K.T) / 2, 1).eigenvalues[0]) / g_max
        return Pilot(growth, _steps_to(spectrum, ratio, y, float(residual.square().sum()), held) / held)

    return run


def _descend(
    network: nn.Module, x: Any, y: Tensor, weighted: Tensor, V: Tensor, step_size: float, steps: int
) -> tuple[nn.Module, Float[Tensor, "n C"]]:
    """The network after `steps` steps along S r = r - weighted V^T r, and its residual there."""
    with torch.no_grad():
        shift = network(x) - y.mean(0)
    parameters = [p for p in network.parameters() if p.requires_grad]
    for _ in range(steps):
        f = network(x)
        r = (f.detach() - shift).to(y) - y
        gradients = torch.autograd.grad(f, parameters, ((r - weighted @ (V.T @ r)) / len(y)).to(f), allow_unused=True)
        with torch.no_grad():
            for p, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    p.sub_(gradient, alpha=step_size)
    with torch.no_grad():
        return network, (network(x) - shift).to(y) - y


def _steps_to(spectrum: Spectrum, ratio: Tensor, y: Tensor, squares: float, steps: int) -> float:
    """The t in [0, steps] at which the kernel predicts |f_t - y|^2 = squares, by bisection."""
    r = spectrum.resolved
    centred = y - y.mean(0)
    energy = (spectrum.eigenvectors[:, :r].T @ centred).square().sum(1)
    outside = float(centred.square().sum() - energy.sum())

    def predicted(t: float) -> float:
        left = 1 - filters(spectrum.eigenvalues[:r], ratio[:r], [t])[0]
        return float((left.square() * energy).sum()) + outside

    low, high = 0.0, float(steps)
    if predicted(high) >= squares:
        return high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if predicted(middle) > squares else (low, middle)
    return low
