"""The tape: runs the layers it knows, and records what their Gram matrices are made of.

Legend: n points, C outputs, T positions, d inputs and o outputs of a layer.
Every recorded operation uses a *detached* parameter. So no weight gradient is ever computed, and a parameter that still shows
in the autograd graph afterwards has a use that no rule knows: it takes the Jacobian path.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from spectrain.kernels.registry import Rule, rule_for


class _Probe(torch.autograd.Function):
    """The identity, in place: gives a tensor that no gradient reaches a place in the graph."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(z)
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


@dataclass
class Use:
    """One use of a weight [o, d] and its bias [o]: the inputs a, and the place in the graph of the output z."""

    weight: str | None
    bias: str | None
    a: Tensor
    version: int
    edge: GradientEdge
    shape: torch.Size
    bias_scale: float


class Tape:
    """Operations with trainable parameters, recorded as they run; rules are written with these.

    `tape.linear(x, weight, bias)` returns what `F.linear` returns. A tensor that is not one of the network's own
    parameters (computed from others, say) is passed through as it is, and its origin takes the Jacobian path.
    """

    def __init__(self, params: Mapping[str, Tensor], skip: Collection[str] = ()) -> None:
        self._names = {id(p): name for name, p in params.items()}
        self._skip = skip
        self.uses: list[Use] = []

    def _take(self, p: Tensor | None) -> tuple[Tensor | None, str | None]:
        """The tensor to compute with, and the parameter's name if this use is to be recorded."""
        if p is None:
            return None, None
        name = self._names.get(id(p))
        if name is None:
            return p, None
        return p.detach(), None if name in self._skip else name

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, *, bias_scale: float = 1.0) -> Tensor:
        """x weight^T + bias_scale * bias."""
        w, weight_name = self._take(weight)
        b, bias_name = self._take(bias)
        if b is not None and bias_scale != 1.0:
            b = bias_scale * b
        assert w is not None
        z = F.linear(x, w, b)
        return self._record(z, x, weight_name, bias_name, bias_scale)

    def _record(self, z: Tensor, a: Tensor, weight: str | None, bias: str | None, bias_scale: float) -> Tensor:
        # Under no_grad the derivative is zero by the network's own will.
        if (weight is None and bias is None) or not torch.is_grad_enabled():
            return z
        if not z.requires_grad:
            z = _Probe.apply(z, torch.zeros((), requires_grad=True))  # type: ignore[no-untyped-call]
        self.uses.append(Use(weight, bias, a.detach(), a._version, get_gradient_edge(z), z.shape, bias_scale))
        return z


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
    output = rule(tape, module, *args, **kwargs)
    if output is NotImplemented:
        return type(module).forward(module, *args, **kwargs)
    return output
