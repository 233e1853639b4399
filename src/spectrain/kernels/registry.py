"""The registry of layer rules: how the layerwise path learns a new kind of layer.

A rule is the layer's own forward, written with the tape's operations instead of torch's. The tape computes the same
numbers and remembers what the layer Gram needs. Rules are found by the *exact* type of a module, since a subclass may
have another forward. A module without a rule is never left out: its parameters take the Jacobian path.

    from spectrain.kernels import Tape, register_rule

    @register_rule(NTKLinear)
    def ntk_linear(tape: Tape, module: NTKLinear, x: Tensor) -> Tensor:
        return tape.linear(x * module.weight_scale, module.weight, module.bias, bias_scale=module.bias_scale)

A rule takes the tape, the module and whatever the module's forward takes, and returns what the forward returns. Where
it meets a setting that it does not know, it raises `NoRuleError` before it touches the tape.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn
from torch.nn.utils import parametrize

Rule = Callable[..., Any]
RuleT = TypeVar("RuleT", bound=Rule)


class NoRuleError(Exception):
    """Raised by a rule that does not know a module's setting or inputs: the module's own forward runs instead."""


_RULES: dict[type[nn.Module], Rule] = {}


def register_rule(*module_types: type[nn.Module]) -> Callable[[RuleT], RuleT]:
    """Register a rule for modules of exactly these types; a later rule for the same type replaces the earlier one."""

    def register(rule: RuleT) -> RuleT:
        for module_type in module_types:
            _RULES[module_type] = rule
        return rule

    return register


def rule_for(module: nn.Module) -> Rule | None:
    """The rule for this module, or None, also where `forward` was replaced on the instance: that is another layer.

    A parametrised module keeps the forward of its own class, which torch has put below another.
    """
    if "forward" in vars(module):
        return None
    return _RULES.get(parametrize.type_before_parametrizations(module))
