"""Forward propagation of a function's value, gradient and diagonal second derivatives through a network.

Legend: n points, d inputs, S channels, F features of a layer.
A `Jet` holds h [n, S, F]: channel 0 the value, then one channel for each first derivative and one for each group G of
inputs, sum_{i in G} d2/dx_i2 (all inputs in one group: the Laplacian). It passes through a module's own forward in
place of x: torch's functions are answered by `__torch_function__`, so that residual connections, Fourier features and
layers of the user's own need nothing special. What is not in the table below raises `NoJetError`.

    linear       z_s = h_s W^T, the bias on channel 0 only
    phi          phi(h_0);  phi'(h_0) h_i;  phi'(h_0) h_G + phi''(h_0) sum_{i in G} h_i^2
    product      u v;  u v_i + v u_i;  u v_G + v u_G + 2 sum_{i in G} u_i v_i

Source: Li et al. 2023 (arXiv 2307.08214), the forward Laplacian.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Derivatives = tuple[Tensor, Tensor, Tensor]  # phi, phi', phi'' at h_0


class NoJetError(Exception):
    """The network does something to which jets have no answer; derivatives then come from torch.func."""


@dataclass(frozen=True)
class Channels:
    """Which derivatives are carried: first ones along `first`, second ones summed over each group of `second`."""

    first: tuple[int, ...] = ()
    second: tuple[tuple[int, ...], ...] = ()

    @property
    def sizes(self) -> list[int]:
        """Numbers of channels for the value, the first and the second derivatives."""
        return [1, len(self.first), len(self.second)]

    def sums(self, like: Tensor) -> Float[Tensor, "second first"]:
        """The matrix that sums over first derivatives in each group."""
        rows = [[float(i in group) for i in self.first] for group in self.second]
        return like.new_tensor(rows).reshape(len(self.second), len(self.first))


class Jet:
    """Channels h [n, S, F] in place of a tensor [n, F]."""

    def __init__(self, h: Float[Tensor, "n S F"], channels: Channels) -> None:
        self.h, self.channels = h, channels

    @classmethod
    def of_points(cls, x: Float[Tensor, "n d"], channels: Channels) -> "Jet":
        """The jet of the identity: x, the unit vectors, zero."""
        n, d = x.shape
        h = x.new_zeros(n, sum(channels.sizes), d)
        h[:, 0] = x
        for place, i in enumerate(channels.first):
            h[:, 1 + place, i] = 1
        return cls(h, channels)

    @property
    def shape(self) -> torch.Size:
        """That of the value."""
        return torch.Size((self.h.shape[0], self.h.shape[2]))

    @property
    def ndim(self) -> int:
        """That of the value."""
        return 2

    @property
    def dtype(self) -> torch.dtype:
        """That of the value."""
        return self.h.dtype

    @property
    def device(self) -> torch.device:
        """That of the value."""
        return self.h.device

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NoJetError(f"the method {name}")

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Value [n, 1, F], first [n, s1, F] and second [n, s2, F] derivatives."""
        value, first, second = self.h.split(self.channels.sizes, dim=1)
        return value, first, second

    def linear(self, weight: Tensor, bias: Tensor | None) -> "Jet":
        """``z_s = h_s W^T``, the bias on channel 0."""
        z = F.linear(self.h, weight)
        if bias is not None:
            z = z + F.pad(bias.unsqueeze(0), (0, 0, 0, z.shape[1] - 1))
        return Jet(z, self.channels)

    def elementwise(self, derivatives: Callable[[Tensor], Derivatives]) -> "Jet":
        """``phi(h_0); phi' h_i; phi' h_G + phi'' sum_{i in G} h_i^2``."""
        value, first, second = self.parts()
        phi, d1, d2 = derivatives(value)
        bent = d1 * second + d2 * self._sum(first.square())
        return Jet(torch.cat([phi, d1 * first, bent], 1), self.channels)

    def times(self, other: "Jet") -> "Jet":
        """The product rule."""
        u, u1, u2 = self.parts()
        v, v1, v2 = other.parts()
        second = u * v2 + v * u2 + 2 * self._sum(u1 * v1)
        return Jet(torch.cat([u * v, u * v1 + v * u1, second], 1), self.channels)

    def plus(self, constant: Any) -> "Jet":
        """A constant, or a tensor that broadcasts to the value [n, F], on channel 0."""
        value, rest = self.h[:, :1], self.h[:, 1:]
        added = constant if not isinstance(constant, Tensor) or constant.ndim < 2 else constant.unsqueeze(1)
        return Jet(torch.cat([value + added, rest], 1), self.channels)

    def scaled(self, factor: Any) -> "Jet":
        """Times a number or a tensor without derivatives in x: one entry, or one for each feature."""
        if isinstance(factor, Tensor) and factor.ndim > 1:
            raise NoJetError("a product with a tensor that may depend on x")
        return Jet(self.h * factor, self.channels)

    def _sum(self, first: Tensor) -> Tensor:
        if not self.channels.second:
            return first[:, :0]
        sums = self.channels.sums(first)
        if len(sums) == 1 and bool((sums == 1).all()):
            return first.sum(1, keepdim=True)
        return torch.einsum("gs,nsf->ngf", sums, first)

    def __getitem__(self, index: Any) -> "Jet":
        """Features of all points: ``x[:, 1:]``, ``x[..., :1]``."""
        rows, *rest = index if isinstance(index, tuple) else (index,)
        everything = rows is Ellipsis or rows == slice(None)
        if not everything or len(rest) != 1 or not isinstance(rest[0], slice | list):
            raise NoJetError(f"the index {index!r}; slice the features, as in x[:, 1:2]")
        return Jet(self.h[:, :, rest[0]], self.channels)

    def __add__(self, other: Any) -> "Jet":
        return _add(self, other)

    def __radd__(self, other: Any) -> "Jet":
        return _add(self, other)

    def __sub__(self, other: Any) -> "Jet":
        return _add(self, -other)

    def __rsub__(self, other: Any) -> "Jet":
        return _add(-self, other)

    def __mul__(self, other: Any) -> "Jet":
        return _multiply(self, other)

    def __rmul__(self, other: Any) -> "Jet":
        return _multiply(self, other)

    def __truediv__(self, other: Any) -> "Jet":
        return self.scaled(1 / other) if not isinstance(other, Jet) else self.times(other.elementwise(_reciprocal))

    def __neg__(self) -> "Jet":
        return Jet(-self.h, self.channels)

    def __pow__(self, power: Any) -> "Jet":
        return _power(self, power)

    def sin(self) -> "Jet":
        """As `torch.sin`; the methods that forwards use on tensors."""
        return self.elementwise(_sin)

    def cos(self) -> "Jet":
        """As `torch.cos`."""
        return self.elementwise(_cos)

    def tanh(self) -> "Jet":
        """As `torch.tanh`."""
        return self.elementwise(_tanh)

    def exp(self) -> "Jet":
        """As `torch.exp`."""
        return self.elementwise(_exp)

    def square(self) -> "Jet":
        """As `torch.square`."""
        return self.elementwise(_square)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> "Jet":
        if func not in FUNCTIONS:
            raise NoJetError(f"the function {getattr(func, '__name__', func)}")
        answer: Jet = FUNCTIONS[func](*args, **(kwargs or {}))
        return answer


def _add(one: Any, other: Any, *, alpha: float = 1) -> Jet:
    if isinstance(one, Jet) and isinstance(other, Jet):
        return Jet(one.h + alpha * other.h, one.channels)
    jet: Jet = one.plus(alpha * other) if isinstance(one, Jet) else (alpha * other).plus(one)
    return jet


def _subtract(one: Any, other: Any, *, alpha: float = 1) -> Jet:
    return _add(one, -alpha * other)


def _multiply(one: Any, other: Any) -> Jet:
    if isinstance(one, Jet) and isinstance(other, Jet):
        return one.times(other)
    jet: Jet = one.scaled(other) if isinstance(one, Jet) else other.scaled(one)
    return jet


def _power(jet: Jet, power: Any) -> Jet:
    if not isinstance(power, int | float):
        raise NoJetError("a power that is not a number")

    def derivatives(h: Tensor) -> Derivatives:
        curvature = torch.ones_like(h) if power in (1, 2) else h ** (power - 2)  # 0 to a negative power is infinite
        return h**power, power * h ** (power - 1), power * (power - 1) * curvature

    return jet.elementwise(derivatives)


def _cat(jets: Any, dim: int = 0) -> Jet:
    if dim not in (1, -1) or not all(isinstance(jet, Jet) for jet in jets):
        raise NoJetError("torch.cat along the points, or with tensors that carry no derivatives")
    return Jet(torch.cat([jet.h for jet in jets], 2), jets[0].channels)


def _gelu_jet(jet: Jet, approximate: str = "none") -> Jet:
    if approximate != "none":
        raise NoJetError("the tanh approximation of gelu")
    return jet.elementwise(_gelu)


def _sin(h: Tensor) -> Derivatives:
    s = h.sin()
    return s, h.cos(), -s


def _cos(h: Tensor) -> Derivatives:
    c = h.cos()
    return c, -h.sin(), -c


def _tanh(h: Tensor) -> Derivatives:
    t = h.tanh()
    d1 = 1 - t * t
    return t, d1, -2 * t * d1


def _exp(h: Tensor) -> Derivatives:
    e = h.exp()
    return e, e, e


def _square(h: Tensor) -> Derivatives:
    return h * h, 2 * h, torch.full_like(h, 2.0)


def _reciprocal(h: Tensor) -> Derivatives:
    r = 1 / h
    return r, -r * r, 2 * r * r * r


def _gelu(h: Tensor) -> Derivatives:
    """h Phi, Phi + h p, p (2 - h^2), Phi and p the normal distribution and its density."""
    normal = 0.5 * (1 + torch.erf(h / math.sqrt(2)))
    p = torch.exp(-0.5 * h * h) / math.sqrt(2 * math.pi)
    return h * normal, normal + h * p, p * (2 - h * h)


FUNCTIONS: dict[Callable[..., Any], Callable[..., Jet]] = {
    F.linear: lambda x, weight, bias=None: x.linear(weight, bias),
    torch.sin: Jet.sin,
    torch.cos: Jet.cos,
    torch.tanh: Jet.tanh,
    F.tanh: Jet.tanh,
    torch.exp: Jet.exp,
    torch.square: Jet.square,
    F.gelu: _gelu_jet,
    torch.cat: _cat,
    torch.add: _add,
    torch.Tensor.add: _add,
    torch.sub: _subtract,
    torch.Tensor.sub: _subtract,
    torch.mul: _multiply,
    torch.Tensor.mul: _multiply,
    torch.pow: _power,
}
