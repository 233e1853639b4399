"""What the tape remembers of one use of a layer's parameters, and how it becomes factors.

Legend: n points, C outputs, T positions, F what is folded into the axis of the points, d inputs and o outputs of a
layer.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge

from spectrain.kernels.factors import Dense, Factor, Geometry, Index, Normed, Outer, Patches
from spectrain.kernels.layouts import Layout

Names = tuple[str, ...]


class Form(ABC):
    """How inputs a [n, ...] and output gradients b [n, C, ...] make the gradients of a weight and a bias."""

    @abstractmethod
    def axes(self, shape: torch.Size) -> tuple[int, ...]:
        """The axes of the layer's output that may be the points."""

    def placed(self, layout: Layout) -> "Form":
        """The form for tensors whose points are the first axis."""
        return self

    def kept(self, a: Tensor | None, b: Tensor) -> Tensor:
        """What is to be kept of the output gradients b until all are there: b, or its sum over positions."""
        return b

    @abstractmethod
    def weight(self, a: Tensor | None, b: Tensor, *, bias: bool) -> Factor:
        """The weight's factor; with `bias` that of the weight and the bias together; b as `kept`."""

    @abstractmethod
    def bias(self, b: Tensor) -> Factor:
        """The bias's own factor."""


@dataclass
class Use:
    """One use: the parameters' names (None: not recorded), the inputs a, the place of the output z in the graph."""

    form: Form
    names: tuple[str | None, str | None]
    a: Tensor | None
    version: int
    edge: GradientEdge
    shape: torch.Size

    @property
    def parameters(self) -> frozenset[str]:
        """The names that are to be recorded."""
        return frozenset(name for name in self.names if name)


@dataclass(frozen=True)
class LinearForm(Form):
    """z = x W^T + bias_scale * bias, or some rows of W (`before` rows of zeros above and `after` below)."""

    bias_scale: float
    before: int
    after: int

    def axes(self, shape: torch.Size) -> tuple[int, ...]:
        """All but the last."""
        return tuple(range(len(shape) - 1))

    def _b(self, b: Tensor) -> Tensor:
        b = b.reshape(*b.shape[:2], -1, b.shape[-1])
        return torch.nn.functional.pad(b, (self.before, self.after)) if self.before or self.after else b

    def weight(self, a: Tensor | None, b: Tensor, *, bias: bool) -> Factor:
        """Inputs and output gradients; a bias is one more input that is always `bias_scale`."""
        assert a is not None
        return Outer(a.reshape(a.shape[0], -1, a.shape[-1]), self._b(b), self.bias_scale if bias else 0.0)

    def bias(self, b: Tensor) -> Factor:
        """The sum over positions."""
        return Dense(self.bias_scale * self._b(b).sum(2))


@dataclass(frozen=True)
class ConvForm(Form):
    """A convolution or transposed convolution of k spatial axes."""

    geometry: Geometry
    transposed: bool

    def axes(self, shape: torch.Size) -> tuple[int, ...]:
        """The first."""
        return (0,)

    def weight(self, a: Tensor | None, b: Tensor, *, bias: bool) -> Factor:
        """Inputs and output gradients as they are; frames keep an axis of their own."""
        assert a is not None
        if a.ndim == len(self.geometry.kernel) + 2:
            a, b = a.unsqueeze(1), b.unsqueeze(2)
        return Patches(self.geometry, float(bias), self.transposed, a.contiguous(), b)

    def bias(self, b: Tensor) -> Factor:
        """The sum over pixels (and frames)."""
        k = len(self.geometry.kernel)
        return Dense(b.flatten(b.ndim - k).sum(-1).reshape(*b.shape[:2], -1, b.shape[-k - 1]).sum(2))


@dataclass(frozen=True)
class IndexForm(Form):
    """A row of a table; the row `padding` gets no gradient."""

    entries: int
    padding: int | None

    def axes(self, shape: torch.Size) -> tuple[int, ...]:
        """All but the last."""
        return tuple(range(len(shape) - 1))

    def weight(self, a: Tensor | None, b: Tensor, *, bias: bool) -> Factor:
        """Indices and output gradients."""
        assert a is not None
        n, C, o = b.shape[0], b.shape[1], b.shape[-1]
        index, b = a.reshape(n, -1), b.reshape(n, C, -1, o)
        if self.padding is not None:
            b = b * (index != self.padding).view(n, 1, -1, 1)
        return Index(self.entries, index, b)

    def bias(self, b: Tensor) -> Factor:
        """A table has none."""
        raise NotImplementedError


@dataclass(frozen=True)
class BroadcastForm(Form):
    """z = a * w or z = a + w, w broadcast; `varies` says along which of z's axes w varies."""

    varies: tuple[bool, ...]

    def axes(self, shape: torch.Size) -> tuple[int, ...]:
        """Those along which w is the same."""
        return tuple(axis for axis, varies in enumerate(self.varies) if not varies)

    def placed(self, layout: Layout) -> "BroadcastForm":
        """The axes that are left after the points have moved to the front."""
        if layout.fold:
            return self
        return BroadcastForm(self.varies[: layout.axis] + self.varies[layout.axis + 1 :])

    def kept(self, a: Tensor | None, b: Tensor) -> Tensor:
        """The gradient itself, [n, C, p]: the sum over all axes along which w is the same, except the points."""
        g = b if a is None else b * a.unsqueeze(1)
        same = [axis + 2 for axis, varies in enumerate(self.varies) if not varies]
        return (g.sum(same) if same else g).reshape(*b.shape[:2], -1)

    def weight(self, a: Tensor | None, b: Tensor, *, bias: bool) -> Factor:
        """The gradient, as it was kept."""
        return Dense(b)

    def bias(self, b: Tensor) -> Factor:
        """A broadcast has one parameter."""
        raise NotImplementedError


@dataclass(frozen=True)
class NormedForm(Form):
    """The v of a weight g v / |v| (see factors/normed.py); scale g / |v| as the output's channels broadcast."""

    layer: Form
    response: Tensor  # the layer's output with the weight v / |v|
    scale: Tensor
    unit: Float[Tensor, "o d"]
    layout: Layout = field(default_factory=Layout)

    def axes(self, shape: torch.Size) -> tuple[int, ...]:
        """The layer's own."""
        return self.layer.axes(shape)

    def placed(self, layout: Layout) -> "NormedForm":
        """The response moves with the output."""
        return replace(self, layout=layout)

    def kept(self, a: Tensor | None, b: Tensor) -> Tensor:
        """The output gradients of the layer whose weight is scale * v."""
        return b * self.scale

    def weight(self, a: Tensor | None, b: Tensor, *, bias: bool) -> Factor:
        """The layer's own factor, and its part along v."""
        along = b * self.layout.points_first(self.response, b.shape[0]).unsqueeze(1)
        channels = b.ndim - self.scale.ndim
        same = [axis for axis in range(2, b.ndim) if axis != channels]
        return Normed(self.layer.weight(a, b, bias=False), along.sum(same) if same else along, self.unit)

    def bias(self, b: Tensor) -> Factor:
        """Biases are recorded by themselves."""
        raise NotImplementedError
