"""What training should do, mode by mode, to be laid over what it did.

Letters: n points, C outputs, k modes, T step counts. Eigenvalues are of K/n; the step size belongs to the mean loss
L = |f - y|^2 / (2n), whose gradient at the outputs is r/n. (For a mean of squares without the half, double it.)
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.spectral_maps import identity
from spectrain.spectrum.spectrum import Spectrum

Map = Callable[[Tensor], Tensor]


def decay(
    spectrum: Spectrum, spectral_map: Map | None, step_size: float, steps: Sequence[int], momentum: float = 0.0
) -> Float[Tensor, "T k"]:
    """By which factor the residual in each mode is multiplied after t steps.

        gradient descent:  (1 - eta g_i)^t
        heavy ball:        a_t,  a_{t+1} = (1 + beta - eta g_i) a_t - beta a_{t-1},  a_0 = 1, a_1 = 1 - eta g_i

    For minibatches drawn at random it is the mean over draws, E r_t: the noise around it is not predicted. Raises
    InputError for a negative number of steps, a step size that is not positive, or momentum outside [0, 1).
    Source: Geifman et al. 2024 (arXiv 2307.14531); the heavy ball is Polyak's (1964).
    """
    _check(step_size, momentum)
    if any(t < 0 for t in steps):
        raise InputError(f"steps={list(steps)}: a number of steps cannot be negative.")
    g = spectrum.eigenvalues * spectrum.ratio(spectral_map or identity())
    x = 1 - step_size * g
    if momentum == 0:
        return torch.stack([x**t for t in steps])
    return torch.stack([_heavy_ball(x, momentum, t) for t in steps])


def predict_residual(
    spectrum: Spectrum,
    residual: Float[Tensor, "n *C"],
    spectral_map: Map | None,
    step_size: float,
    steps: Sequence[int],
    momentum: float = 0.0,
) -> Float[Tensor, "T n *C"]:
    """r_t = V diag(a_t) V^T r_0 + (r_0 - V V^T r_0): the residual f - y after each of `steps` steps.

    The part outside the k modes held is taken to stand still. Exact for squared loss while the kernel does not move.
    Source: Geifman et al. 2024 (arXiv 2307.14531), theorem on preconditioned gradient descent.
    """
    if residual.ndim not in (1, 2) or residual.shape[0] != spectrum.n:
        raise InputError(f"The residual has shape {tuple(residual.shape)}, but the spectrum has {spectrum.n} points.")
    V = spectrum.eigenvectors
    r = residual.to(V).reshape(spectrum.n, -1)
    projected = V.T @ r
    factors = decay(spectrum, spectral_map, step_size, steps, momentum)
    out = torch.stack([r + V @ ((a - 1)[:, None] * projected) for a in factors])
    return out.reshape(len(steps), *residual.shape)


def steps_to_tolerance(
    spectrum: Spectrum,
    spectral_map: Map | None,
    step_size: float,
    tolerance: float = 0.05,
    momentum: float = 0.0,
) -> Float[Tensor, "k"]:
    """Steps until the residual of each mode is `tolerance` times what it was; inf where it never is.

    ceil(log tolerance / log |1 - eta g_i|); with momentum beta the rate is the larger root of
    z^2 - (1 + beta - eta g) z + beta (Polyak 1964).
    """
    _check(step_size, momentum)
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance={tolerance} must be between 0 and 1.")
    g = spectrum.eigenvalues * spectrum.ratio(spectral_map or identity())
    rate = _asymptotic_rate(1 - step_size * g, momentum)
    steps = (math.log(tolerance) / rate.clamp(min=1e-300).log()).ceil().clamp(min=1)
    return torch.where(rate < 1, steps, math.inf)


def steps_to_fit(
    spectrum: Spectrum, residual: Float[Tensor, "n *C"], spectral_map: Map | None, step_size: float, tolerance: float
) -> float:
    """The first t with |r_t| <= tolerance |r_0| for this residual, of all modes together; inf where there is none.

    |r_t|^2 = sum_i (1 - eta g_i)^2t (v_i . r_0)^2 + what lies outside the k modes. It falls, so bisection finds t.
    Raises InputError as `steps_to_tolerance`.
    """
    _check(step_size, 0.0)
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance={tolerance} must be between 0 and 1.")
    left = (1 - step_size * spectrum.eigenvalues * spectrum.ratio(spectral_map or identity())).abs()
    r = residual.to(spectrum.eigenvectors).reshape(spectrum.n, -1)
    energy = (spectrum.eigenvectors.T @ r).square().sum(1)
    total = float(r.square().sum())
    outside = total - float(energy.sum())
    if float(left.max()) > 1:
        raise InputError(
            f"step_size={step_size} must be at most 2 / g_max, {largest_step_size(spectrum, spectral_map):.3g}."
        )

    def fits(t: int) -> bool:
        return float((left ** (2 * t) * energy).sum()) + outside <= tolerance**2 * total

    high = 1
    while not fits(high):
        high *= 2
        if high > 2**50:
            return math.inf
    low = high // 2  # not fit, or 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return float(high)


def largest_step_size(spectrum: Spectrum, spectral_map: Map | None, momentum: float = 0.0) -> float:
    """2 (1 + beta) / max_i g_i: beyond it some mode grows. From a subset's spectrum it comes out too large.

    Source: Polyak 1964.
    """
    g = spectrum.eigenvalues * spectrum.ratio(spectral_map or identity())
    return 2 * (1 + momentum) / float(g.max())


def _asymptotic_rate(x: Tensor, beta: float) -> Tensor:
    if beta == 0:
        return x.abs()
    half = (x + beta) / 2
    root = (half.square() - beta).to(torch.complex128).sqrt()
    return torch.maximum((half + root).abs(), (half - root).abs())


def _heavy_ball(x: Tensor, beta: float, t: int) -> Tensor:
    """The t-th power of the companion matrix [[x + beta, -beta], [1, 0]], started from (1 - eta g, 1)."""
    companion = torch.zeros(*x.shape, 2, 2, dtype=x.dtype, device=x.device)
    companion[..., 0, 0], companion[..., 0, 1], companion[..., 1, 0] = x + beta, -beta, 1
    start = torch.stack([x, torch.ones_like(x)], -1)[..., None]
    after: Tensor = torch.linalg.matrix_power(companion, t) @ start
    return after[..., 1, 0]


def _check(step_size: float, momentum: float) -> None:
    if not step_size > 0 or not 0 <= momentum < 1:
        raise InputError(f"step_size={step_size} must be positive and momentum={momentum} in [0, 1).")
