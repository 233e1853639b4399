"""What every factor of a layer's per-sample gradients can do.

Legend: n points, C outputs, T positions (tokens, pixels, or the uses of a shared weight), d inputs and o outputs of a
layer, p = columns of the layer's Jacobian, q a chunk of them. G[i, c] is the gradient of output c at point i.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Sizes:
    """The numbers from which the cheaper Gram matrix is chosen."""

    positions: int
    inputs: int
    outputs: int
    groups: int = 1

    @property
    def columns(self) -> int:
        """The number of columns p of the Jacobian."""
        return self.inputs * self.outputs * self.groups


class Factor(ABC):
    """Per-sample gradients in factored form; every tensor in it has the points as its first axis."""

    fills_room = False  # whether `columns` writes into the room that it is given

    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors, the one that also has the outputs C as its second axis last."""

    @abstractmethod
    def like(self, tensors: Sequence[Tensor]) -> Self:
        """A factor of the same kind made of other tensors."""

    @property
    @abstractmethod
    def sizes(self) -> Sizes:
        """T, d, o of the layer."""

    @abstractmethod
    def columns(self, start: int, stop: int, room: Tensor | None = None) -> Float[Tensor, "n C q"]:
        """Columns of the Jacobian, formed: those of the layer's outputs start .. stop.

        `room`, a vector of at least n C q numbers, is where they are written if the factor `fills_room`: fresh memory
        for every chunk of columns costs time.
        """

    def split(self, summed: bool) -> "tuple[Factor, ...]":
        """Factors of plainer form whose Gram matrices add up to this one's.

        A weight apart from its bias; where the outputs are `summed`, each output alone if that saves copies.
        """
        return (self,)

    def terms(self) -> "tuple[tuple[float, Factor], ...]":
        """Signs and factors whose Gram matrices, with these signs, add up to this one's at less cost."""
        return ((1.0, self),)

    @property
    def has_positions(self) -> bool:
        """Whether the position Gram is on offer; if not, only columns are."""
        return False

    def input_gram(self, other: Self, rows: slice, columns: slice) -> Float[Tensor, "n T m S"]:
        """a a^T between all positions of some points of this factor and some of another of its kind."""
        raise NotImplementedError

    def output_positions(self) -> Float[Tensor, "n C T o"]:
        """b, for the position Gram."""
        raise NotImplementedError

    def pull(self, v: Float[Tensor, "n C k"]) -> Float[Tensor, "k p"]:
        """J^T v: g[k] = sum_ic v[i, c, k] G[i, c], without forming all of G."""
        units = self.sizes.outputs
        return torch.cat([torch.einsum("nck,ncq->kq", v, self.columns(u, u + 1)) for u in range(units)], 1)

    def push(self, g: Float[Tensor, "k p"]) -> Float[Tensor, "n C k"]:
        """J g: out[i, c, k] = G[i, c] . g[k], for g in the order of `pull`."""
        parts = g.chunk(self.sizes.outputs, 1)
        return torch.stack(
            [torch.einsum("ncq,kq->nck", self.columns(u, u + 1), part) for u, part in enumerate(parts)]
        ).sum(0)

    def squares(self) -> Float[Tensor, "n C"]:
        """|G[i, c]|^2."""
        units = range(self.sizes.outputs)
        return torch.stack([self.columns(u, u + 1).square().sum(2) for u in units]).sum(0)

    def output(self, c: int) -> Self:
        """The factor of one output alone."""
        *rest, b = self.tensors()
        return self.like([*rest, b[:, c : c + 1]])

    def with_outputs(self, C: int) -> Self:
        """The factor of one output, repeated C times without a copy."""
        *rest, b = self.tensors()
        return self.like([*rest, b.expand(-1, C, *b.shape[2:])])

    @property
    def n(self) -> int:
        """The number of points."""
        return self.tensors()[0].shape[0]

    @property
    def C(self) -> int:  # noqa: N802
        """The number of outputs."""
        return self.tensors()[-1].shape[1]

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return self.tensors()[-1].element_size()

    @property
    def row_bytes(self) -> int:
        """Bytes of the factor for one point."""
        return sum(t[0].numel() * t.element_size() for t in self.tensors())

    def rows(self, rows: slice | Tensor) -> Self:
        """The factor of some of the points, a slice of them or by index."""
        return self.like([t[rows] for t in self.tensors()])

    def empty(self, n: int) -> Self:
        """Room for the same factor of n points."""
        return self.like([t.new_empty(n, *t.shape[1:]) for t in self.tensors()])

    def fill(self, rows: slice, part: Self) -> None:
        """Write the factor of some of the points."""
        for mine, theirs in zip(self.tensors(), part.tensors(), strict=True):
            mine[rows] = theirs


@dataclass(frozen=True)
class Dense(Factor):
    """G[i, c] itself, flattened."""

    g: Float[Tensor, "n C p"]

    def tensors(self) -> tuple[Tensor, ...]:
        """G."""
        return (self.g,)

    def like(self, tensors: Sequence[Tensor]) -> "Dense":
        """Another G."""
        return Dense(*tensors)

    @property
    def sizes(self) -> Sizes:
        """Every column is an output of its own."""
        return Sizes(positions=1, inputs=1, outputs=self.g.shape[2])

    def columns(self, start: int, stop: int, room: Tensor | None = None) -> Float[Tensor, "n C q"]:
        """A slice of G."""
        return self.g[:, :, start:stop]

    def pull(self, v: Float[Tensor, "n C k"]) -> Float[Tensor, "k p"]:
        """One product."""
        return v.flatten(0, 1).T @ self.g.flatten(0, 1)

    def push(self, g: Float[Tensor, "k p"]) -> Float[Tensor, "n C k"]:
        """One product."""
        return self.g @ g.T

    def squares(self) -> Float[Tensor, "n C"]:
        """|G[i, c]|^2."""
        return self.g.square().sum(2)


@dataclass(frozen=True)
class Outer(Factor):
    """G[i, c] = sum_t b[i, c, t] (x) a[i, t], formed only if cheaper; a bias is one more a, always `bias`."""

    a: Float[Tensor, "n T d"]
    b: Float[Tensor, "n C T o"]
    bias: float = 0.0
    fills_room = True

    def tensors(self) -> tuple[Tensor, ...]:
        """The factors a and b."""
        return (self.a, self.b)

    def like(self, tensors: Sequence[Tensor]) -> "Outer":
        """Other a and b."""
        return replace(self, a=tensors[0], b=tensors[1])

    @property
    def sizes(self) -> Sizes:
        """T, d (with the bias) and o as in the shapes."""
        T, d = self.a.shape[1:]
        return Sizes(positions=T, inputs=d + bool(self.bias), outputs=self.b.shape[3])

    def inputs(self) -> Float[Tensor, "n T d1"]:
        """a, with the bias's column."""
        if not self.bias:
            return self.a
        return torch.cat([self.a, self.a.new_full((*self.a.shape[:2], 1), self.bias)], 2)

    def columns(self, start: int, stop: int, room: Tensor | None = None) -> Float[Tensor, "n C q"]:
        """sum_t b[:, :, t, start:stop] (x) a[:, t]."""
        n, C, T, _ = self.b.shape
        b, a = self.b[..., start:stop].transpose(2, 3).reshape(n, -1, T), self.inputs()  # b: no copy if C = 1
        out = None if room is None else room[: b.shape[1] * n * a.shape[2]].view(n, b.shape[1], -1)
        return torch.bmm(b, a, out=out).view(n, C, -1)

    def terms(self) -> tuple[tuple[float, Factor], ...]:
        """With fewer positions: of b that is the same at all of them (a mean of tokens follows, say) b (x) sum_t a[t];
        without those where b is zero (one token alone is read, say).
        """
        few = self.b[0, :, :, :16]  # which show of most layers, at no cost, that they are not of these
        if self.b.shape[2] == 1:
            return ((1.0, self),)
        if bool((few == few[:, :1]).all()) and bool((self.b == self.b[:, :, :1]).all()):
            return ((1.0, Outer(self.a.sum(1, keepdim=True), self.b[:, :, :1], self.bias * self.b.shape[2])),)
        if bool((few != 0).any(2).all()):
            return ((1.0, self),)
        read = (self.b != 0).any(3).any(1).any(0)
        return ((1.0, self.like([self.a[:, read], self.b[:, :, read]])),)

    def split(self, summed: bool) -> tuple[Factor, ...]:
        """A bias's gradient is the sum of b over positions; of one output, b is read where it lies.

        There a and b may change places, which makes chunks of the longer one.
        """
        bias = (Dense(self.bias * self.b.sum(2)),) if self.bias else ()
        if not summed:
            return (replace(self, bias=0.0), *bias)
        if self.a.shape[2] > self.b.shape[3]:
            return (*(Outer(b, self.a.unsqueeze(1)) for b in self.b.unbind(1)), *bias)
        return (*(Outer(self.a, b.unsqueeze(1)) for b in self.b.unbind(1)), *bias)

    @property
    def has_positions(self) -> bool:
        """Always."""
        return True

    def input_gram(self, other: Factor, rows: slice, columns: slice) -> Float[Tensor, "n T m S"]:
        """a a^T + bias^2."""
        assert isinstance(other, Outer)
        a1, a2 = self.a[rows], other.a[columns]
        aa = a1.flatten(0, 1) @ a2.flatten(0, 1).T
        return (aa.add_(self.bias * other.bias) if self.bias else aa).view(*a1.shape[:2], *a2.shape[:2])

    def output_positions(self) -> Float[Tensor, "n C T o"]:
        """The factor b."""
        return self.b

    def pull(self, v: Float[Tensor, "n C k"]) -> Float[Tensor, "k p"]:
        """sum_it (v b)[i, t] (x) a[i, t], one product of matrices per column of v."""
        a = self.inputs().flatten(0, 1)
        weighted = (torch.einsum("nc,ncto->nto", column, self.b).flatten(0, 1) for column in v.unbind(2))
        return torch.stack([(vb.T @ a).flatten() for vb in weighted])

    def push(self, g: Float[Tensor, "k p"]) -> Float[Tensor, "n C k"]:
        """sum_t b[i, c, t] . (g a[i, t])."""
        a, o = self.inputs(), self.b.shape[3]
        return torch.stack([torch.einsum("ncto,nto->nc", self.b, a @ one.view(o, -1).T) for one in g], 2)
