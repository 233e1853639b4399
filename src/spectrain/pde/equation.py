"""An equation: a domain, a residual, conditions, and what the solution is known to be.

Legend: n points, d inputs, C outputs, m equations (components of a residual).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.pde.domains import Domain, Sampler
from spectrain.pde.fields import Field


@dataclass(frozen=True)
class Condition:
    """Something that the solution must fulfil: ``residual(field) = 0``, [n] or [n, m], at the points of a sampler.

    Where there are measurements, `x` and `data` hold the fixed points and their values, and there is no sampler;
    `field.data` are then the values. The loss is the sum over conditions of ``weight/2 mean |residual|^2``.
    """

    name: str
    residual: Callable[[Field], Tensor]
    sampler: Sampler | None = None
    weight: float = 1.0
    x: Float[Tensor, "n d"] | None = None
    data: Float[Tensor, "n ..."] | None = None


@dataclass(frozen=True)
class Hard:
    """A condition that ``lift(x) + bubble(x) network(x)`` fulfils by itself (`HardConditions`); it is then left out."""

    condition: str
    bubble: Callable[[Any], Any]
    lift: Callable[[Any], Any] | None = None


class Equation:
    """A differential equation for a network to solve; a new one gives `domain`, `residual` and `conditions`.

    Attributes:
        domain: where it holds.
        outputs: the number of functions that are sought, C.
        interior_weight: of the equation's own residual among the conditions.
        coefficients: unknown numbers in the equation and where to start from; a residual reads
            ``field.coefficients[name]``.
        true_coefficients: what they are, for the report.
    """

    domain: Domain
    outputs: ClassVar[int] = 1
    interior_weight: float = 1.0
    coefficients: ClassVar[Mapping[str, float]] = {}
    true_coefficients: ClassVar[Mapping[str, float]] = {}

    @property
    def name(self) -> str:
        """In messages and figures."""
        return type(self).__name__

    def residual(self, field: Field) -> Tensor:
        """What is zero inside the domain, [n] or [n, m]."""
        raise NotImplementedError

    def conditions(self) -> list[Condition]:
        """On the boundary, at the first moment, from data."""
        return []

    def hard(self) -> Hard | None:
        """How a network can fulfil one of the conditions by itself, for those who ask for it; None: no way is given."""
        return None

    def exact(self, x: Float[Tensor, "N d"]) -> Float[Tensor, "N C"] | None:
        """The solution, or a reference; None where it is not known. Errors are measured against it."""
        return None

    def all_conditions(self) -> list[Condition]:
        """The equation inside the domain, and the others.

        Raises:
            InputError: a weight that is not above 0, or two conditions of one name.
        """
        inside = Condition("interior", self.residual, self.domain.interior, self.interior_weight)
        found = [inside, *self.conditions()]
        names = [condition.name for condition in found]
        if len(set(names)) < len(names):
            raise InputError(f"{self.name}: its conditions are named {', '.join(names)}; each needs a name of its own.")
        return found
