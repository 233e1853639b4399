"""A layer's outputs whose gradients are multiples of one another, unit by unit: one product of matrices for them all.

Legend: n points, C outputs, T positions, o outputs of a layer.
Where a layer z is followed by an elementwise function, a sum over positions if there are several, and a linear readout,
f = V sum_t phi(z[t]), output c's gradients are b_c[i, t, o] = V[c, o] phi'(z[i, t, o]), so that of their Gram matrices

    sum_c b_c[i, t, o] b_c[j, s, o] = b[i, t, o] b[j, s, o],   b = b_0 sqrt(sum_c r_c^2),   r_c[o] = b_c / b_0

Nothing is assumed of the network: every number of b_c is compared with r_c b_0, and an output with one that differs by
more than rounding goes its own way.
"""

import torch
from jaxtyping import Float
from torch import Tensor

_ROUNDINGS = 8
_GLANCE = 16  # units of the first point, which show of most layers at no cost that they are not of these


class Multiples:
    """Output gradients of one layer, as long as they are multiples of the first one's."""

    def __init__(self, b: Float[Tensor, "n 1 *T o"]) -> None:
        self._first = b
        self._squares = b.new_ones(b.shape[-1])
        self._largest: Tensor | None = None  # where every unit of the first is largest, [1, o]

    def add(self, b: Float[Tensor, "n 1 *T o"]) -> bool:
        """Count another output's in, unless they are no multiples."""
        few = b[:1, ..., :_GLANCE], self._first[:1, ..., :_GLANCE]
        if _ratio(*few, _largest(few[1])) is None:
            return False
        if self._largest is None:
            self._largest = _largest(self._first)
        r = _ratio(b, self._first, self._largest)
        squares = None if r is None else self._squares + r.square()
        if squares is None or not bool(squares.isfinite().all()):  # a first output that is all but zero
            return False
        self._squares = squares
        return True

    def total(self) -> Float[Tensor, "n 1 *T o"]:
        """One output's gradients whose Gram matrix is the sum of the Gram matrices of all that were counted in."""
        return self._first * self._squares.sqrt()


def _largest(b: Tensor) -> Tensor:
    return b.flatten(0, -2).abs().argmax(0, keepdim=True)


def _ratio(b: Tensor, first: Tensor, largest: Tensor) -> Float[Tensor, " o"] | None:
    """r with b = r first up to rounding, if there is one."""
    one, two = (t.flatten(0, -2).gather(0, largest)[0] for t in (first, b))
    r = torch.where(one != 0, two / one, 0)
    near = (first * r).sub_(b).abs_() <= _ROUNDINGS * torch.finfo(b.dtype).eps * b.abs()
    return r if bool(near.all()) else None
