"""The factors of a layer's per-sample gradients, and their Gram matrices.

Legend: n points, C outputs, T positions (tokens, pixels, or the uses of a shared weight), d inputs and o outputs of a layer,
p parameters. The gradient of output c at point i with respect to a weight is G[i, c] = sum_t b[i, c, t] (x) a[i, t].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Outer:
    """G[i, c] = sum_t b[i, c, t] (x) a[i, t], never formed unless that is cheaper."""

    a: Float[Tensor, "n T d"]
    b: Float[Tensor, "n C T o"]

    @property
    def tensor(self) -> Tensor:
        """The tensor [n, C, ...] that gives the factor's dtype and number of outputs."""
        return self.b


@dataclass(frozen=True)
class Dense:
    """G[i, c] itself, flattened."""

    g: Float[Tensor, "n C p"]

    @property
    def tensor(self) -> Tensor:
        """The tensor [n, C, ...] that gives the factor's dtype and number of outputs."""
        return self.g


Factor = Outer | Dense


def join(uses: Sequence[Factor]) -> Factor:
    """One factor for a parameter that is used several times: more uses are more positions."""
    if len(uses) == 1:
        return uses[0]
    outer = [u for u in uses if isinstance(u, Outer)]
    if len(outer) == len(uses):
        return Outer(torch.cat([u.a for u in outer], 1), torch.cat([u.b for u in outer], 2))
    return Dense(torch.stack([dense(u) for u in uses]).sum(0))


def dense(factor: Factor) -> Float[Tensor, "n C p"]:
    """The per-sample gradients."""
    if isinstance(factor, Dense):
        return factor.g
    return torch.einsum("ncto,ntd->ncod", factor.b, factor.a).flatten(2)


def add_gram(K: Float[Tensor, "n C m C"], left: Factor, right: Factor) -> None:
    """K += <G_left, G_right>, in place; C axes of length 1 in K mean that outputs are summed (trace)."""
    if isinstance(left, Outer) and isinstance(right, Outer) and _positions_are_cheaper(left, right, K.shape[1]):
        _add_position_gram(K, left, right)
    else:
        _add_products(K, dense(left), dense(right))


def _positions_are_cheaper(left: Outer, right: Outer, C: int) -> bool:
    """Flops of the position Gram, T^2 (d + o), against those of per-sample gradients, d o."""
    T2 = left.a.shape[1] * right.a.shape[1]
    d, o = left.a.shape[2], left.b.shape[3]
    return T2 == 1 or T2 * (d + o) < d * o


def _add_products(K: Float[Tensor, "n C m C"], g1: Float[Tensor, "n c p"], g2: Float[Tensor, "m c p"]) -> None:
    n, C, m, _ = K.shape
    K += (g1.reshape(n * C, -1) @ g2.reshape(m * C, -1).T).view(n, C, m, C)


def _add_position_gram(K: Float[Tensor, "n C m C"], left: Outer, right: Outer) -> None:
    n, C, m, _ = K.shape
    T1, T2 = left.a.shape[1], right.a.shape[1]
    aa = (left.a.flatten(0, 1) @ right.a.flatten(0, 1).T).view(n, 1, T1, m, 1, T2)
    b1 = left.b.transpose(1, 2).reshape(n, T1, C, -1).transpose(1, 2)
    b2 = right.b.transpose(1, 2).reshape(m, T2, C, -1).transpose(1, 2)
    bb = (b1.reshape(n * C * T1, -1) @ b2.reshape(m * C * T2, -1).T).view(n, C, T1, m, C, T2)
    if T1 == T2 == 1:
        K.addcmul_(aa[:, :, 0, :, :, 0], bb[:, :, 0, :, :, 0])
    else:
        K += (bb * aa).sum((2, 5))
