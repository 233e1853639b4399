"""The function a network stands for, with its derivatives, as residuals see it.

Legend: n points, d inputs, C outputs.
A residual is a function of a `Field`, written with `u`, `grad_u`, `second_u` and `laplace_u`; where the derivatives
come from (channels that pass forward, or torch.func) is the field's business.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.pde.jets import Channels, Jet


class Field(ABC):
    """A function at the points x [n, d].

    Attributes:
        x: the points.
        data: what was measured at them [n, ...], where a condition has data.
        coefficients: unknown numbers of the equation, by name, each [n] or a scalar.
    """

    def __init__(
        self, x: Float[Tensor, "n d"], data: Tensor | None = None, coefficients: dict[str, Tensor] | None = None
    ) -> None:
        self.x, self.data, self.coefficients = x, data, coefficients or {}

    @abstractmethod
    def value(self) -> Float[Tensor, "n C"]:
        """The function itself."""

    @abstractmethod
    def first(self) -> Float[Tensor, "n C d"]:
        """Its first derivatives."""

    @abstractmethod
    def second(self, group: tuple[int, ...]) -> Float[Tensor, "n C"]:
        """``sum_{i in group} d2/dx_i2``."""


def u(field: Field, output: int = 0) -> Float[Tensor, " n"]:
    """The function's value; `output` names one of several functions that the network stands for."""
    return field.value()[:, output]


def grad_u(field: Field, output: int = 0) -> Float[Tensor, "n d"]:
    """``(du/dx_1, .., du/dx_d)``; time is one of the inputs."""
    return field.first()[:, output]


def second_u(field: Field, i: int, output: int = 0) -> Float[Tensor, " n"]:
    """``d2u/dx_i2``."""
    return field.second((_checked(i, field),))[:, output]


def laplace_u(field: Field, output: int = 0, dims: Sequence[int] | None = None) -> Float[Tensor, " n"]:
    """``sum_i d2u/dx_i2`` over `dims`, by default all inputs (give the space's where time is an input too)."""
    group = tuple(range(field.x.shape[1])) if dims is None else tuple(sorted({_checked(i, field) for i in dims}))
    return field.second(group)[:, output]


def _checked(i: int, field: Field) -> int:
    d = field.x.shape[1]
    if not -d <= i < d:
        raise InputError(f"The derivative along input {i} was asked for; the points have the inputs 0 to {d - 1}.")
    return i % d


class JetField(Field):
    """A field whose derivatives have come forward with the value."""

    def __init__(self, jet: Jet, x: Tensor, data: Tensor | None, coefficients: dict[str, Tensor]) -> None:
        super().__init__(x, data, coefficients)
        self._channels = jet.channels
        self._value, self._first, self._second = jet.parts()

    def value(self) -> Float[Tensor, "n C"]:
        """Channel 0."""
        return self._value[:, 0]

    def first(self) -> Float[Tensor, "n C d"]:
        """The next channels."""
        return self._first.transpose(1, 2)

    def second(self, group: tuple[int, ...]) -> Float[Tensor, "n C"]:
        """The last ones."""
        return self._second[:, self._channels.second.index(group)]


class PointField(Field):
    """A field of any function of one point, differentiated by torch.func: what every other way is compared with."""

    def __init__(
        self,
        function: Callable[[Float[Tensor, " d"]], Float[Tensor, " C"]],
        x: Tensor,
        data: Tensor | None,
        coefficients: dict[str, Tensor],
    ) -> None:
        super().__init__(x, data, coefficients)
        self._function = function

    def value(self) -> Float[Tensor, "n C"]:
        """The function at every point."""
        found: Tensor = torch.func.vmap(self._function)(self.x)
        return found

    def first(self) -> Float[Tensor, "n C d"]:
        """Its Jacobian at every point."""
        found: Tensor = torch.func.vmap(torch.func.jacfwd(self._function))(self.x)
        return found

    def second(self, group: tuple[int, ...]) -> Float[Tensor, "n C"]:
        """Two directional derivatives for each input."""
        return torch.stack([torch.func.vmap(self._along(i))(self.x) for i in group]).sum(0)

    def _along(self, i: int) -> Callable[[Tensor], Tensor]:
        def derivative(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def along(x: Tensor) -> Tensor:
                direction = torch.nn.functional.one_hot(torch.tensor(i, device=x.device), len(x)).to(x.dtype)
                change: Tensor = torch.func.jvp(function, (x,), (direction,))[1]
                return change

            return along

        return derivative(derivative(self._function))


class Inquiry(PointField):
    """A field that notes which derivatives a residual asks for."""

    def __init__(
        self, function: Callable[[Tensor], Tensor], x: Tensor, data: Tensor | None, coefficients: dict[str, Tensor]
    ) -> None:
        super().__init__(function, x, data, coefficients)
        self._first_asked = False
        self._groups: list[tuple[int, ...]] = []

    def first(self) -> Float[Tensor, "n C d"]:
        """As of any field, noted."""
        self._first_asked = True
        return super().first()

    def second(self, group: tuple[int, ...]) -> Float[Tensor, "n C"]:
        """As of any field, noted."""
        if group not in self._groups:
            self._groups.append(group)
        return super().second(group)

    @property
    def asked(self) -> Channels:
        """The channels that answer all of it; second derivatives need the first ones of their inputs."""
        needed = {i for group in self._groups for i in group}
        if self._first_asked:
            needed = set(range(self.x.shape[1]))
        return Channels(tuple(sorted(needed)), tuple(self._groups))
