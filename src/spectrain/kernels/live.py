"""A training step's own forward, recorded: the factors of its kernel cost no second forward.

Legend: n points, C outputs, p parameters of one layer.
Unlike `capture`, which computes on stand-ins, this runs the module itself, on its own parameters and in whatever
precision it trains in; what it returns is part of the training graph.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.kernels.bare import BareUses
from spectrain.kernels.capture import Factors, UnknownUseError, assemble, check_inputs, output_gradients
from spectrain.kernels.factors import Dense, Factor, Outer
from spectrain.kernels.jacobian import jacobian_factors
from spectrain.kernels.network import Inputs, Network, arguments, undisturbed, unwrap, without_checkpointing
from spectrain.kernels.planning import Look, look
from spectrain.kernels.tape import Tape, recording
from spectrain.kernels.uses import Use


class LiveTape(Tape):
    """A tape that leaves the parameters in the graph, so that the loss's backward reaches them as ever."""

    def _take(self, p: Tensor | None) -> tuple[Tensor | None, str | None]:
        # A view: the parameter itself would be seen as a bare use once more.
        return None if p is None else p.view_as(p), super()._take(p)[1]

    def _made(self, weight: Tensor) -> Tensor:
        return weight.view_as(weight)


@dataclass(frozen=True)
class LivePlan:
    """What a first look at a network has shown, for its training forwards."""

    network: Network
    look: Look

    @property
    def complete(self) -> bool:
        """Whether `pull_parameters` knows how to make every parameter's gradient from the factors."""
        return not self.look.plan.rest and all(
            isinstance(factor, (Outer, Dense)) and len(factor.split(summed=False)) == len(names)
            for names, factor in self.look.sample.items()
        )


def plan_live(
    module: nn.Module, x: Inputs, outputs: str, *, layers: int | None = None, by_jacobian: bool = False
) -> LivePlan:
    """Look at the module on the first few points of x.

    `layers` takes the parameters of that many last layers alone, in the order in which they run; `by_jacobian` uses no
    rule for any parameter. Raises InputError for networks without a kernel, as `empirical_ntk` does.
    """
    network = Network(module)
    with undisturbed(network):
        if layers is not None:
            uses = look(network, x, outputs, frozenset(), strict=False).plan.uses
            if not uses:
                raise InputError("No layer of the network has a rule, so its last ones are unknown: use layers=null.")
            last = list(dict.fromkeys(reversed(uses)))[:layers]
            network = Network(module, params=[name for names in last for name in names if name])
        rest = frozenset(network.params) if by_jacobian else frozenset[str]()
        return LivePlan(network, look(network, x, outputs, rest, strict=False))


def record_live(module: nn.Module, x: Inputs, live: LivePlan) -> tuple[Tensor, list[Use]]:
    """``module(x)``, in its own shape and part of the training graph, and every use of the plan's parameters.

    Compiled parts run as they were written: there is nothing to record in compiled code. Raises UnknownUseError where
    the uses are not those of the first look.
    """
    inner = unwrap(module)
    tape = LiveTape({name: inner.get_parameter(name) for name in live.network.params}, skip=live.look.plan.rest)
    args, kwargs = arguments(x)
    with torch.compiler.set_stance("force_eager"), without_checkpointing(), recording(inner, tape), BareUses(tape):
        output: Tensor = module(*args, **kwargs)
    if tuple(use.names for use in tape.uses) != live.look.plan.uses:
        raise UnknownUseError(frozenset(live.network.params))
    check_inputs(tape.uses)
    return output, tape.uses


def factors_live(f: Float[Tensor, "n C"], uses: Sequence[Use], live: LivePlan, module: nn.Module, x: Inputs) -> Factors:
    """Factors of a training forward f, by one backward per output that computes no weight's gradient; f's graph stays.

    They are in the precision of kernels. What autocast has rounded are factors, which leaves the kernel positive
    semi-definite.
    """
    plan, dtype = live.look.plan, live.network.dtype
    factors = assemble(uses, output_gradients(f, uses, plan, keep_graph=True), f.shape[0], plan)
    factors = {names: _cast(factor, dtype) for names, factor in factors.items()}
    if plan.rest:
        network = Network(module, params=list(live.network.params))  # with the buffers of now
        with undisturbed(network):
            factors |= jacobian_factors(network, network.inputs(x), plan)
    return factors


def pull_parameters(
    factors: Factors, s: Float[Tensor, " n"], parameters: Mapping[str, Tensor]
) -> dict[str, Float[Tensor, "..."]]:
    """sum_i s_i d f(x_i)/dw for every parameter w, by its name: what a backward pass from s computes.

    For one output, and factors of a `complete` plan.
    """
    gradients: dict[str, Tensor] = {}
    for names, factor in factors.items():
        for name, gradient in zip(names, _pull(factor, s), strict=True):
            gradients[name] = gradient.view(parameters[name].shape).to(parameters[name].dtype)
    return gradients


def _pull(factor: Factor, s: Float[Tensor, " n"]) -> tuple[Tensor, ...]:
    """The gradient of a weight, and of its bias if the factor has one: (s b)^T a and the sum of s b."""
    s = s.to(factor.tensors()[-1].dtype)
    if not isinstance(factor, Outer):
        return (factor.pull(s.view(-1, 1, 1)),)
    sb = (s.view(-1, 1, 1) * factor.b[:, 0]).flatten(0, 1)
    weight = sb.T @ factor.a.flatten(0, 1)
    return (weight, factor.bias * sb.sum(0)) if factor.bias else (weight,)


def _cast(factor: Factor, dtype: torch.dtype) -> Factor:
    return factor.like([t.to(dtype) if t.is_floating_point() else t for t in factor.tensors()])
