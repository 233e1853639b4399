"""nn.Linear: K = (A A^T + 1) o (B B^T), inputs A, output gradients B."""

from torch import Tensor, nn

from spectrain.kernels.registry import register_rule
from spectrain.kernels.tape import Tape


@register_rule(nn.Linear)
def linear(tape: Tape, module: nn.Linear, input: Tensor) -> Tensor:
    """The layer Gram of a Linear layer."""
    return tape.linear(input, module.weight, module.bias)
