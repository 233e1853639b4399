"""Bare parameters: those a module uses by itself, outside any layer: x * gamma, x + position, token.expand, F.linear.

While the network is recorded, torch's own functions are watched; where one of the few below meets a parameter of the
network, the tape runs it instead. A use that is not among them takes the Jacobian path, like any other.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from spectrain.kernels.registry import NoRuleError
from spectrain.kernels.tape import Tape


class BareUses(TorchFunctionMode):
    """Within, functions of a bare parameter are recorded."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The recorded form of the function if there is one, or the function."""
        kwargs = kwargs or {}
        recorded = _FUNCTIONS.get(func)
        if recorded is not None and any(self._tape.knows(arg) for arg in (*args, *kwargs.values())):
            try:
                return recorded(self._tape, *args, **kwargs)
            except (NoRuleError, TypeError):
                pass
        return func(*args, **kwargs)


def _sides(tape: Tape, one: Any, other: Any) -> tuple[Tensor, Tensor]:
    """The tensor and the parameter, where exactly one of the two is a parameter and the other already has its shape."""
    x, p = (one, other) if tape.knows(other) else (other, one)
    if tape.knows(x) or not isinstance(x, Tensor) or not x.is_floating_point():
        raise NoRuleError
    return x, p


def _multiply(tape: Tape, one: Any, other: Any) -> Tensor:
    return tape.multiply(*_sides(tape, one, other))


def _add(tape: Tape, one: Any, other: Any) -> Tensor:
    return tape.add(*_sides(tape, one, other))


def _linear(tape: Tape, input: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    return tape.linear(input, weight, bias)


def _weight_norm(tape: Tape, v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return tape.weight_norm(v, g, dim)


def _expand(tape: Tape, p: Tensor, *sizes: Any) -> Tensor:
    """A parameter that is handed to every point, such as a class token."""
    shape = torch.Size(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else torch.Size(sizes)
    offset = len(shape) - p.ndim
    full = [p.shape[axis - offset] if size == -1 else size for axis, size in enumerate(shape)]
    return tape.add(p.new_zeros(full, requires_grad=False), p)


_FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.Tensor.mul: _multiply,
    torch.mul: _multiply,
    torch.Tensor.add: _add,
    torch.add: _add,
    torch.Tensor.expand: _expand,
    F.linear: _linear,
    torch._weight_norm: _weight_norm,
}
