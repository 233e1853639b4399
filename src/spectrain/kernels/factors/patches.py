"""Convolutions: a Linear layer on patches, which are unfolded only for the few points at hand.

Legend: n points, C outputs, T output pixels, F frames (a convolution that sees [n F, ...]), g groups,
d = inputs per group x kernel size (+ 1 with a bias), o = outputs per group.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from spectrain.kernels.factors.base import Dense, Factor, Sizes

_UNFOLDED_BYTES = 2**26


@dataclass(frozen=True)
class Geometry:
    """The shape of a convolution with zero padding."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


def patches(x: Float[Tensor, "n c ..."], geometry: Geometry, out: Sequence[int]) -> Float[Tensor, "n g T d"]:
    """The patch of x under the kernel at every output pixel."""
    x = F.pad(x, [side for pad in reversed(geometry.padding) for side in (pad, pad)])
    x = x.contiguous()
    n, c = x.shape[:2]
    g = geometry.groups
    strides = x.stride()
    view = x.as_strided(
        (n, g, c // g, *out, *geometry.kernel),
        (
            *(strides[0], strides[1] * (c // g), strides[1]),
            *(s * step for s, step in zip(strides[2:], geometry.stride, strict=True)),
            *(s * step for s, step in zip(strides[2:], geometry.dilation, strict=True)),
        ),
    )
    k = len(out)
    order = (0, 1, *range(3, 3 + k), 2, *range(3 + k, 3 + 2 * k))
    return view.permute(order).reshape(n, g, -1, (c // g) * _product(geometry.kernel))


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


@dataclass(frozen=True)
class Patches(Factor):
    """G[i, c] = sum over pixels of b (x) patch(a); transposed: the patches are those of b."""

    geometry: Geometry
    bias: float
    transposed: bool
    a: Float[Tensor, "n F c ..."]
    b: Float[Tensor, "n C F o ..."]
    fills_room = True

    def tensors(self) -> tuple[Tensor, ...]:
        """The layer's inputs and output gradients."""
        return (self.a, self.b)

    def like(self, tensors: Sequence[Tensor]) -> "Patches":
        """The same layer at other points."""
        return replace(self, a=tensors[0], b=tensors[1])

    @property
    def sizes(self) -> Sizes:
        """T pixels of all frames; d and o per group."""
        g, k = self.geometry.groups, _product(self.geometry.kernel)
        pixels = self.a.shape[3:] if self.transposed else self.b.shape[4:]
        c, o = self.a.shape[2] // g, self.b.shape[3] // g
        T = _product(pixels) * self.a.shape[1]
        # Transposed: the weight is [in, out, kernel], so the inputs are what the columns are counted by.
        return Sizes(T, o * k, c, g) if self.transposed else Sizes(T, c * k + bool(self.bias), o, g)

    def _unfolded(self) -> tuple[Float[Tensor, "n g T d"], Float[Tensor, "n C g T o"]]:
        """Both sides as a Linear layer sees them."""
        n, C, frames = self.b.shape[:3]
        g = self.geometry.groups
        a, b = self.a.flatten(0, 1), self.b.flatten(0, 2)
        if self.transposed:
            d = _merge_frames(patches(b, self.geometry, self.a.shape[3:]), frames)
            plain = _merge_frames(a.reshape(n * frames, g, a.shape[1] // g, -1).transpose(2, 3), frames)
            return plain, d.view(n, C, *d.shape[1:])
        p = _merge_frames(patches(a, self.geometry, self.b.shape[4:]), frames)
        if self.bias:
            p = torch.cat([p, p.new_full((*p.shape[:3], 1), self.bias)], 3)
        plain = _merge_frames(b.reshape(n * C * frames, g, b.shape[1] // g, -1).transpose(2, 3), frames)
        return p, plain.view(n, C, *plain.shape[1:])

    def columns(self, start: int, stop: int, room: Tensor | None = None) -> Float[Tensor, "n C q"]:
        """sum_t b[t, start:stop] (x) patch[t], a few points at a time."""
        sizes, C = self.sizes, self.C
        shape = (self.n, C, sizes.groups * (stop - start) * sizes.inputs)
        out = self.b.new_empty(shape) if room is None else room[: _product(shape)].view(shape)
        row = sizes.positions * sizes.groups * (sizes.inputs + C * sizes.outputs) * self.itemsize
        step = max(1, _UNFOLDED_BYTES // max(1, row))
        for lo, hi in pairwise([*range(0, self.n, step), self.n]):
            out[lo:hi] = self.rows(slice(lo, hi))._columns(start, stop)
        return out

    def _columns(self, start: int, stop: int) -> Float[Tensor, "n C q"]:
        a, b = self._unfolded()
        n, C = self.n, self.C
        if self.transposed:
            left = a[..., start:stop].transpose(2, 3).unsqueeze(1).expand(n, C, -1, -1, -1)
            return torch.matmul(left, b).reshape(n, C, -1)
        b = b[..., start:stop].permute(0, 2, 1, 4, 3).flatten(2, 3)
        return torch.matmul(b, a).view(n, a.shape[1], C, -1).transpose(1, 2).reshape(n, C, -1)

    def split(self, summed: bool) -> tuple[Factor, ...]:
        """A bias's gradient is the sum of b over pixels."""
        if not self.bias:
            return (self,)
        return (replace(self, bias=0.0), Dense(self.bias * self.b.flatten(4).sum(-1).sum(2)))

    @property
    def has_positions(self) -> bool:
        """Groups and transposed convolutions use columns."""
        return not self.transposed and self.geometry.groups == 1

    def input_gram(self, other: Factor, rows: slice, columns: slice) -> Float[Tensor, "n T m S"]:
        """The Gram of the patches."""
        assert isinstance(other, Patches)
        one, two = self.rows(rows), other.rows(columns)
        a1, a2 = one._unfolded()[0].squeeze(1), two._unfolded()[0].squeeze(1)
        (n, T1, _), (m, T2, _) = a1.shape, a2.shape
        return (a1.flatten(0, 1) @ a2.flatten(0, 1).T).view(n, T1, m, T2)

    def output_positions(self) -> Float[Tensor, "n C T o"]:
        """b with its pixels as positions."""
        return self.b.flatten(4).transpose(3, 4).flatten(2, 3)


def _merge_frames(t: Float[Tensor, "nf g T d"], frames: int) -> Float[Tensor, "n g FT d"]:
    if frames == 1:
        return t
    nf, g, T, d = t.shape
    return t.view(nf // frames, frames, g, T, d).transpose(1, 2).reshape(nf // frames, g, frames * T, d)
