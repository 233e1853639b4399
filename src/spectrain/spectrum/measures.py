"""What a spectrum says: small functions, each with its equation.

Letters: n points, k modes, C outputs. Eigenvalues are of K/n.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.spectrum.spectrum import Spectrum


def condition_number(spectrum: Spectrum) -> float:
    """lambda_1 / lambda_r, r the last resolved mode: what gradient descent pays on the modes held. nan if none is."""
    if spectrum.resolved == 0:
        return math.nan
    return float(spectrum.eigenvalues[0] / spectrum.eigenvalues[spectrum.resolved - 1])


def energy_per_mode(spectrum: Spectrum, residual: Float[Tensor, "n *C"]) -> Float[Tensor, "k"]:
    """e_i = sum_c (v_i^T r_c)^2 / n: the mean square of the residual along each mode (same units as a mean loss).

    Over all n modes it sums to |r|^2 / n (Parseval). Raises InputError when the residual does not have n rows.
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
