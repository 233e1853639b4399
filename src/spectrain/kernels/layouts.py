"""Where the points are: the place of the batch in a layer's input and output.

Legend: n points, F what else is folded into the first axis (frames, windows, time).
Most layers see the points as their first axis. Others see time first, or points and tokens folded into one axis. The
place is found out by differentiating sum_i r_i f_i with random r: its gradient at point i must be r_i times that of
sum_i f_i.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The points are axis `axis`; or, folded with F others, the slower ("major") or faster ("minor") part of axis 0."""

    axis: int = 0
    fold: str | None = None

    def points_first(self, t: Tensor, n: int) -> Shaped[Tensor, "n ..."]:
        """The same tensor with the points as its first axis."""
        if self.fold == "major":
            return t.reshape(n, -1, *t.shape[1:])
        if self.fold == "minor":
            return t.reshape(-1, n, *t.shape[1:]).transpose(0, 1)
        return t.movedim(self.axis, 0)


def candidates(shape: torch.Size, axes: tuple[int, ...], n: int) -> list[Layout]:
    """The layouts that a tensor of this shape allows, the usual ones first."""
    found = [Layout(axis) for axis in axes if shape[axis] == n]
    if 0 in axes and shape[0] % n == 0 and shape[0] > 0:
        found += [Layout(fold="major"), Layout(fold="minor")]
    return found


def find(
    plain: Tensor, weighted: Tensor, weights: Float[Tensor, " n"], axes: tuple[int, ...], tolerance: float
) -> Layout | None:
    """The layout in which `weighted`, a gradient of sum_i weights_i f_i, is weights_i times `plain`, if any."""
    n = weights.shape[0]
    scale = plain.abs().max()
    for layout in candidates(plain.shape, axes, n):
        one, two = layout.points_first(plain, n), layout.points_first(weighted, n)
        if (two - weights.view(n, *[1] * (one.ndim - 1)) * one).abs().max() <= tolerance * scale:
            return layout
    return None
