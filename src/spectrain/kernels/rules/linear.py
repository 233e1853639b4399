"""nn.Linear: K = (A A^T + 1) o (B B^T), inputs A, output gradients B."""

from typing import Any

from torch import nn

from spectrain.kernels.registry import register_rule
from spectrain.kernels.tape import Tape


@register_rule(nn.Linear)
def linear(tape: Tape, module: nn.Linear, input: Any) -> Any:  # a tensor, or what a tape of its own passes through
    """The layer Gram of a Linear layer."""
    return tape.linear(input, module.weight, module.bias)
