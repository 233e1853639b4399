"""What a spectrum says: small functions, each with its equation.

Letters: n points, k modes, C outputs. Eigenvalues are of K/n.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.spectrum.spectrum import Spectrum


def condition_number(spectrum: Spectrum, spectral_map: Callable[[Tensor], Tensor] | None = None) -> float:
    """max_i g_i / min_i g_i over the resolved modes: what descent pays on the modes held. nan if none is resolved.

    Without a map g = lambda, and it is lambda_1 / lambda_r. Descent of step size 1/g_max takes about this many steps to
    bring the slowest mode down by a factor e (Nesterov 2004, section 2.1.5).
    """
    r = spectrum.resolved
    if r == 0:
        return math.nan
    g = spectrum.eigenvalues[:r]
    if spectral_map is not None:
        g = g * spectrum.ratio(spectral_map)[:r]
    return float(g.max() / g.min())


def effective_rank(spectrum: Spectrum) -> float:
    """exp(-sum_i p_i log p_i), p_i = lambda_i / sum_j lambda_j, over the modes held (Roy and Vetterli 2007)."""
    p = _shares(spectrum)
    return float(torch.exp(-torch.special.xlogy(p, p).sum()))


def participation_ratio(spectrum: Spectrum) -> float:
    """(sum_i lambda_i)^2 / sum_i lambda_i^2, over the modes held: how many modes carry the kernel.

    At most `effective_rank`: exp of the entropy of order 2 instead of 1 (Renyi 1961; the name is Bell and Dean 1970's).
    """
    return float(1 / _shares(spectrum).square().sum())


def _shares(spectrum: Spectrum) -> Float[Tensor, "k"]:
    total = spectrum.eigenvalues.sum()
    if not float(total) > 0:
        raise InputError("The kernel is zero: its modes have no shares.")
    return spectrum.eigenvalues / total


def kernel_target_alignment(K: Float[Tensor, "n n"], y: Float[Tensor, "n *C"], *, centred: bool = False) -> float:
    """<K, Y Y^T> / (|K| |Y Y^T|), in [0, 1] for a positive semi-definite K (Cristianini et al. 2001).

    centred=True takes H K H and H y, H = I - 1 1^T / n (Cortes, Mohri and Rostamizadeh 2012): the constant mode, which
    is most of a typical kernel, no longer decides. nan when one of the norms is zero.
    """
    n = K.shape[0]
    if y.ndim not in (1, 2) or y.shape[0] != n:
        raise InputError(f"y has shape {tuple(y.shape)}, but the kernel has {n} points.")
    Y = y.to(K).reshape(n, -1)
    if centred:
        Y = Y - Y.mean(0)
        K = K - K.mean(0) - K.mean(1, keepdim=True) + K.mean()
    inner = (Y * (K @ Y)).sum()
    norms = K.norm() * (Y.T @ Y).norm()
    return float(inner / norms) if float(norms) > 0 else math.nan


def energy_per_mode(spectrum: Spectrum, residual: Float[Tensor, "n *C"]) -> Float[Tensor, "k"]:
    """e_i = sum_c (v_i^T r_c)^2 / n: the mean square of the residual along each mode (same units as a mean loss).

    Over all n modes it sums to |r|^2 / n (Parseval); which of it each step takes is Geifman et al. 2024 (arXiv
    2307.14531). Raises InputError when the residual does not have n rows.
    """
    n = spectrum.n
    if residual.ndim not in (1, 2) or residual.shape[0] != n:
        raise InputError(
            f"The residual has shape {tuple(residual.shape)}, but the spectrum has {n} points; it must be "
            f"[{n}] or [{n}, C]."
        )
    R = residual.to(spectrum.eigenvectors).reshape(n, -1)
    return (spectrum.eigenvectors.T @ R).square().sum(1) / n


def energy_per_band(
    spectrum: Spectrum, residual: Float[Tensor, "n *C"], edges: Sequence[int] | None = None
) -> Float[Tensor, "bands"]:
    """Energy of the residual in bands of modes, and last in everything outside the k modes held.

    Band j holds modes edges[j] .. edges[j+1]-1; by default the edges double: 0, 1, 2, 4, 8, .., k. Sums to |r|^2 / n.
    Source: `energy_per_mode`, summed.
    """
    k = spectrum.rank
    edges = default_bands(k) if edges is None else list(edges)
    if edges != sorted(set(edges)) or edges[0] < 0 or edges[-1] > k:
        raise InputError(f"The band edges {edges} must be increasing mode numbers between 0 and {k}.")
    energy = energy_per_mode(spectrum, residual)
    bands = [energy[a:b].sum() for a, b in pairwise(edges)]
    total = residual.to(energy).square().sum() / spectrum.n
    rest = (total - energy[edges[0] : edges[-1]].sum()).clamp(min=0)
    return torch.stack([*bands, rest])


def default_bands(rank: int) -> list[int]:
    """0, 1, 2, 4, 8, .., rank."""
    edges = [0]
    while edges[-1] < rank:
        edges.append(min(rank, max(1, 2 * edges[-1])))
    return edges
