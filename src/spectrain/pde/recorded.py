"""One condition's residuals with the factors of their gradients, from one pass forward and one backward per component.

Legend: n points, S channels, m components.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spectrain.kernels import NoRuleError, Tape
from spectrain.kernels.bare import BareUses
from spectrain.kernels.factors import Dense, Factor, Outer, join
from spectrain.kernels.tape import recording
from spectrain.optim import RowBlock
from spectrain.pde.fields import JetField
from spectrain.pde.jets import Channels, Jet, NoJetError


@dataclass
class _Use:
    """One use of a linear layer: inputs a, outputs z, both [n, S, .], and the parameters' names."""

    a: Tensor
    z: Tensor
    weight: str | None
    bias: str | None
    bias_scale: float


@dataclass
class _Coefficient:
    """An unknown number of the equation, spread over the points: the gradient of each copy is one point's own."""

    name: str
    spread: Tensor = field(repr=False)


class JetTape(Tape):
    """Records linear layers that a jet passes; the network's other operations answer jets by themselves."""

    def __init__(self, params: Mapping[str, Tensor]) -> None:
        super().__init__(params)
        self.passed: list[_Use] = []

    def linear(
        self,
        x: Any,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        bias_scale: float = 1.0,
        rows: slice | None = None,
    ) -> Any:
        """``z_s = h_s W^T``, the bias on channel 0, with detached parameters."""
        if not isinstance(x, Jet) or rows is not None:
            raise NoRuleError
        w, weight_name = self._take(weight)
        b, bias_name = self._take(bias)
        z = x.linear(w, b if b is None or bias_scale == 1.0 else bias_scale * b)
        if not z.h.requires_grad:
            z.h.requires_grad_()
        self.passed.append(_Use(x.h.detach(), z.h, weight_name, bias_name, bias_scale))
        return z


def record(
    network: nn.Module,
    coefficients: Mapping[str, Tensor],
    residual: Any,
    x: Tensor,
    data: Tensor | None,
    channels: Channels,
    scale: float,
) -> list[RowBlock]:
    """`scale` times the residual at x, one block for each component; `coefficients` by the names of their parameters.

    Raises:
        NoJetError: the network does something, or uses a parameter in a way, that jets do not know.
    """
    params = dict(network.named_parameters())
    tape = JetTape({name: p for name, p in params.items() if p.requires_grad})
    spread = {name: p.detach().expand(len(x)).clone().requires_grad_() for name, p in coefficients.items()}
    with torch.enable_grad(), recording(network, tape), BareUses(tape):
        jet = network(Jet.of_points(x, channels))
        if not isinstance(jet, Jet):
            raise NoJetError("something that loses the derivatives")
        r = scale * residual(JetField(jet, x, data, {name.rpartition(".")[2]: p for name, p in spread.items()}))
    columns = r.reshape(len(x), -1).unbind(1)
    others = [p for p in params.values() if p.requires_grad]
    sources = [*(use.z for use in tape.passed), *spread.values(), *others]
    blocks = []
    for c, column in enumerate(columns):
        grads = torch.autograd.grad(column.sum(), sources, retain_graph=c + 1 < len(columns), allow_unused=True)
        uses, rest = grads[: len(tape.passed)], grads[len(tape.passed) :]
        if any(grad is not None for grad in rest[len(spread) :]):
            raise NoJetError("a parameter outside linear layers")
        factors = _factors(tape.passed, uses)
        for name, grad in zip(spread, rest, strict=False):
            if grad is not None:
                factors[name] = Dense(grad[:, None, None])
        blocks.append(RowBlock(column.detach(), factors))
    return blocks


def _factors(passed: list[_Use], grads: tuple[Tensor | None, ...]) -> dict[str, Factor]:
    found: dict[str, list[Factor]] = {}
    for use, grad in zip(passed, grads, strict=True):
        if grad is None:
            continue
        b = grad.unsqueeze(1)
        if use.weight:
            found.setdefault(use.weight, []).append(Outer(use.a, b))
        if use.bias:
            found.setdefault(use.bias, []).append(Dense(use.bias_scale * b[:, :, 0]))
    return {name: join(factors) for name, factors in found.items()}
