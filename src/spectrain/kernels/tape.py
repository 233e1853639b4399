"""The tape: runs the layers it knows, and records what their Gram matrices are made of.

Legend: n points, T positions, d inputs and o outputs of a layer.
Every recorded operation uses a *detached* parameter. So no weight gradient is ever computed, and a parameter that still
shows in the autograd graph afterwards has a use that no rule knows: it takes the Jacobian path.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from spectrain.kernels.factors import Geometry
from spectrain.kernels.registry import NoRuleError, Rule, rule_for
from spectrain.kernels.uses import BroadcastForm, ConvForm, Form, IndexForm, LinearForm, NormedForm, Use

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class _Probe(torch.autograd.Function):
    """The identity, in place: gives a tensor that no gradient reaches a place in the graph."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(z)
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class Tape:
    """Operations with trainable parameters, recorded as they run; rules are written with these.

    `tape.linear(x, weight, bias)` returns what `F.linear` returns, and so on. A tensor that is not one of the
    network's own parameters (computed from others, say) is passed through as it is, and its origin takes the Jacobian
    path.
    """

    def __init__(self, params: Mapping[str, Tensor], skip: Collection[str] = ()) -> None:
        self._names = {id(p): name for name, p in params.items()}
        self._skip = skip
        self._normed: dict[int, tuple[Tensor, Tensor, Tensor]] = {}  # by the id of a weight: the weight, its v and g
        self.uses: list[Use] = []

    def knows(self, p: Any) -> bool:
        """Whether this is one of the network's own parameters, or a weight normalised from them."""
        return id(p) in self._names or id(p) in self._normed

    def weight_norm(self, v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
        """g v / |v|; with one length per row, layers that take it as their weight record g and v."""
        w = torch._weight_norm(v, g, dim)
        if dim == 0:
            self._normed[id(w)] = (w, v, g)
        return w

    def linear(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        bias_scale: float = 1.0,
        rows: slice | None = None,
    ) -> Tensor:
        """x weight^T + bias_scale * bias; `rows` takes only these rows of the weight and of the bias."""
        if id(weight) in self._normed and bias_scale == 1.0 and rows is None:
            return self._with_norm(F.linear, x, weight, bias, LinearForm(1.0, 0, 0), (-1,))
        w, weight_name = self._take(weight)
        b, bias_name = self._take(bias)
        first, last, _ = (rows or slice(None)).indices(w.shape[0])
        w, b = w[first:last], None if b is None else b[first:last] * bias_scale if bias_scale != 1.0 else b[first:last]
        form = LinearForm(bias_scale, first, weight.shape[0] - last)
        return self._record(F.linear(x, w, b), form, (weight_name, bias_name), x)

    def conv(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: Geometry,
        *,
        transposed: bool = False,
        output_padding: tuple[int, ...] = (),
    ) -> Tensor:
        """A convolution of one, two or three axes with zero padding, or its transpose; x is [n, channels, ...]."""
        k, g = len(geometry.kernel), geometry
        if id(weight) in self._normed and not transposed:
            run = partial(_CONV[k], stride=g.stride, padding=g.padding, dilation=g.dilation, groups=g.groups)
            return self._with_norm(run, x, weight, bias, ConvForm(g, False), (-1, *(1,) * k))
        w, weight_name = self._take(weight)
        b, bias_name = self._take(bias)
        if transposed:
            z = _CONV_TRANSPOSE[k](x, w, b, g.stride, g.padding, output_padding, g.groups, g.dilation)
            # Its bias has no place among the patches, so the two are recorded one by one.
            z = self._record(z, ConvForm(g, True), (weight_name, None), x)
            return self._record(z, ConvForm(g, True), (None, bias_name), None)
        z = _CONV[k](x, w, b, g.stride, g.padding, g.dilation, g.groups)
        return self._record(z, ConvForm(g, False), (weight_name, bias_name), x)

    def _with_norm(
        self,
        run: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        form: Form,
        channels: tuple[int, ...],
    ) -> Tensor:
        """run(x, weight) + bias for a weight g v / |v|, with g, v and the bias recorded one by one."""
        _, v, g = self._normed[id(weight)]
        (v, v_name), (g, g_name) = self._take(v), self._take(g)
        v, g = v.detach(), g.detach()
        length = torch.linalg.vector_norm(v.flatten(1), dim=1)
        unit, scale = v.flatten(1) / length[:, None], (g.flatten() / length).view(channels)
        response = run(x.detach(), unit.view_as(v))
        z = run(x, self._made(weight))
        z = self._record(z, NormedForm(form, response, scale, unit), (v_name, None), x)
        z = self._record(z, BroadcastForm(_varies(z, scale)), (g_name, None), response)
        return z if bias is None else self.add(z, bias, channels)

    def embedding(self, index: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
        """Rows of the weight."""
        w, name = self._take(weight)
        form = IndexForm(weight.shape[0], padding_idx)
        return self._record(F.embedding(index, w, padding_idx), form, (name, None), index)

    def multiply(self, x: Tensor, weight: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """x * weight, the weight seen as `shape` and broadcast."""
        w, name = self._take(weight)
        w = w if shape is None else w.view(shape)
        z = x * w
        return self._record(z, BroadcastForm(_varies(z, w)), (name, None), x.expand_as(z))

    def add(self, x: Tensor, bias: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """x + bias, the bias seen as `shape` and broadcast."""
        w, name = self._take(bias)
        w = w if shape is None else w.view(shape)
        z = x + w
        return self._record(z, BroadcastForm(_varies(z, w)), (name, None), None)

    def add_rows(self, x: Tensor, bias: Tensor, rows: slice) -> Tensor:
        """x + bias[rows], along the last axis of x."""
        w, name = self._take(bias)
        first, last, _ = rows.indices(bias.shape[0])
        form = LinearForm(1.0, first, bias.shape[0] - last)
        return self._record(x + w[rows], form, (None, name), None)

    def _take(self, p: Any) -> tuple[Any, str | None]:
        """The tensor to compute with, and the parameter's name if this use is to be recorded."""
        name = self._names.get(id(p))
        if name is None:
            return p, None
        return p.detach(), None if name in self._skip else name

    def _made(self, weight: Tensor) -> Tensor:
        """A weight that is made of parameters which are recorded."""
        return weight.detach()

    def _record(self, z: Tensor, form: Form, names: tuple[str | None, str | None], a: Tensor | None) -> Tensor:
        # Under no_grad the derivative is zero by the network's own will.
        if names == (None, None) or not torch.is_grad_enabled():
            return z
        if z._is_view():  # autograd would put another node in this one's place where the network changes z in place
            z = torch.ops.aten._unsafe_view(z, z.shape)
        if not z.requires_grad:
            z = _Probe.apply(z, torch.zeros((), requires_grad=True))  # type: ignore[no-untyped-call]
        version = 0 if a is None else a._version
        self.uses.append(Use(form, names, None if a is None else a.detach(), version, get_gradient_edge(z), z.shape))
        return z


def _varies(z: Tensor, w: Tensor) -> tuple[bool, ...]:
    """Along which axes of z the broadcast w varies; an axis of length 1 in both may be the points."""
    shape = (1,) * (z.ndim - w.ndim) + tuple(w.shape)
    return tuple(length > 1 for length in shape)


@contextmanager
def recording(module: nn.Module, tape: Tape) -> Iterator[None]:
    """Within, every module that has a rule runs it instead of its own forward; afterwards nothing of that is left."""
    patched: list[nn.Module] = []
    try:
        for child in module.modules():
            rule = rule_for(child)
            if rule is not None:
                vars(child)["forward"] = partial(_run, rule, tape, child)
                patched.append(child)
        yield
    finally:
        for child in patched:
            vars(child).pop("forward", None)


def _run(rule: Rule, tape: Tape, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    try:
        return rule(tape, module, *args, **kwargs)
    except NoRuleError:
        return type(module).forward(module, *args, **kwargs)
