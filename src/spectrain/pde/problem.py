"""An equation and a network together: its points, and the checks that come before the first step.

Legend: n residuals of all conditions, d inputs, C outputs, m components of one condition's residual.
"""

import math
import warnings
from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.errors import InputError, SpectrainWarning
from spectrain.pde.domains import draw
from spectrain.pde.equation import Equation
from spectrain.pde.fields import Field, Inquiry, JetField, PointField
from spectrain.pde.jets import Channels, Jet, NoJetError
from spectrain.pde.recorded import record
from spectrain.pde.residuals import Points, Residuals, check_residual
from spectrain.pde.wrappers import COEFFICIENTS, HardConditions, Solution

# Second derivatives of these are zero almost everywhere: a Laplacian cannot train through them.
_KINKED = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Hardshrink,
    nn.Softshrink, nn.Threshold,
)  # fmt: skip


class Problem:
    """An equation for a network to solve.

    ::

        problem = Problem(Poisson2D(), network)
        optimizer = GaussNewton(problem.parameters())
        for step in range(200):
            loss = optimizer.step(problem.residuals(problem.draw(generator)))

    `points`: collocation points inside; `boundary_points`: on each other condition with a sampler. `weights`: of
    conditions by name, in place of the equation's own. `hard`: the network is made to fulfil one condition by itself,
    as the equation says. `by_jets` says whether derivatives come forward through the network (any with linear layers,
    tanh, sine, gelu, ...) or from torch.func, the slower way for all others; `why_not` then says why.

    Raises:
        InputError: naming the equation: no points, weights that are not above 0, residuals of a wrong shape or that are
            not finite, a network with kinks under second derivatives, inputs or outputs that do not fit.
    """

    def __init__(
        self,
        equation: Equation,
        network: nn.Module,
        *,
        points: int = 900,
        boundary_points: int = 120,
        weights: Mapping[str, float] | None = None,
        hard: bool = False,
    ) -> None:
        self.equation = equation
        self.network = network
        self.conditions = {condition.name: condition for condition in equation.all_conditions()}
        if hard:
            self._make_hard()
        if equation.coefficients and not hasattr(network, COEFFICIENTS):
            self.network = Solution(self.network, equation.coefficients)
        self._counts = {name: points if name == "interior" else boundary_points for name in self.conditions}
        self.weights = self._checked_weights(weights or {})
        if not self.parameters():
            raise InputError(f"{equation.name}: the network has no parameters to train.")
        if self.dtype != torch.float64:
            warnings.warn(
                f"{equation.name}: the network is in {str(self.dtype).removeprefix('torch.')}; second derivatives and "
                "a Gauss-Newton step lose about half of its digits, and errors below 1e-4 are out of reach. "
                "Use network.double() (trainer.precision=64-true).",
                SpectrainWarning,
                stacklevel=2,
            )
        self.components: dict[str, int] = {}  # of each condition's residual
        self.channels = self._inquire()
        self.why_not = self._why_no_jets()

    @property
    def dtype(self) -> torch.dtype:
        """The network's."""
        return self.parameters()[0].dtype

    @property
    def device(self) -> torch.device:
        """The network's."""
        return self.parameters()[0].device

    @property
    def by_jets(self) -> bool:
        """Whether derivatives come forward with the value."""
        return self.why_not is None

    def parameters(self) -> list[nn.Parameter]:
        """What is trained: the network's parameters and the equation's coefficients."""
        return [p for p in self.network.parameters() if p.requires_grad]

    def draw(self, generator: torch.Generator) -> dict[str, Points]:
        """Fresh points for every condition; measurements stay where they are."""
        return {name: self._draw(name, self._counts[name], generator) for name in self.conditions}

    def at(self, x: Mapping[str, Tensor]) -> dict[str, Points]:
        """Points that were drawn before, with what was measured there."""
        return {name: self._points(name, part) for name, part in x.items()}

    def residuals(
        self, points: Mapping[str, Points], weights: Mapping[str, float] | None = None, *, shared: bool = False
    ) -> Residuals:
        """The residual vector at these points, of the network as it is when asked; `weights` in place of its own.

        `shared`: the ranks of torch.distributed, which all have these points, share the work of its kernel.
        """
        return Residuals(self, points, self.weights if weights is None else weights, shared=shared)

    def field(self, x: Float[Tensor, "N d"], channels: Channels | None = None) -> Field:
        """The network's function at any points, without a graph; with jets, its derivatives in `channels`."""
        x = x.to(self.device, self.dtype)
        if self.by_jets:
            return JetField(self.network(Jet.of_points(x, channels or Channels())), x, None, self.coefficients())
        return PointField(lambda point: self.network(point[None])[0], x, None, self.coefficients())

    def coefficients(self) -> dict[str, Tensor]:
        """The equation's unknown numbers, by name."""
        return dict(getattr(self.network, COEFFICIENTS, {}))

    def _make_hard(self) -> None:
        """The network inside one that fulfils a condition by itself, and the others left to be trained for."""
        known = self.equation.hard()
        if known is None:
            raise InputError(
                f"{self.equation.name} does not say how a network fulfils its conditions by itself (data.hard=true); "
                "leave it out, or give the equation a method hard()."
            )
        self.network = HardConditions(self.network, known.bubble, known.lift)
        del self.conditions[known.condition]

    def _draw(self, name: str, count: int, generator: torch.Generator) -> Points:
        condition, what = self.conditions[name], f"{self.equation.name}, {name}"
        if condition.sampler is not None:
            x = draw(condition.sampler, count, generator, what)
        elif condition.x is None or len(condition.x) == 0:
            raise InputError(f"{what}: it has neither a sampler nor points; the domain may lack that part.")
        else:
            x = condition.x
        if x.shape[1] != self.equation.domain.dim:
            raise InputError(f"{what}: its points have {x.shape[1]} inputs, the domain {self.equation.domain.dim}.")
        return self._points(name, x)

    def _points(self, name: str, x: Tensor) -> Points:
        data = self.conditions[name].data
        return Points(x.to(self.device, self.dtype), None if data is None else data.to(self.device, self.dtype))

    def _checked_weights(self, given: Mapping[str, float]) -> dict[str, float]:
        unknown = [name for name in given if name not in self.conditions]
        name = self.equation.name
        if unknown:
            raise InputError(f"{name} has no condition {unknown[0]!r}; it has {', '.join(self.conditions)}.")
        found = {key: given.get(key, condition.weight) for key, condition in self.conditions.items()}
        for key, weight in found.items():
            if not (isinstance(weight, Real) and math.isfinite(weight) and weight > 0):
                raise InputError(f"{name}: the weight of {key} is {weight!r}; it must be a finite number above 0.")
        return {key: float(weight) for key, weight in found.items()}

    def _inquire(self) -> dict[str, Channels]:
        """Which derivatives each residual asks for, from a look at a few points; fills `components`, and checks."""
        found = {}
        generator = torch.Generator().manual_seed(0)
        for name, condition in self.conditions.items():
            points = self._draw(name, 3, generator)
            inquiry = Inquiry(lambda x: self.network(x[None])[0], points.x, points.data, self.coefficients())
            with torch.no_grad():
                self._check_outputs(points.x, f"{self.equation.name}, {name}")
                r = condition.residual(inquiry)
            check_residual(r, len(points.x), f"{self.equation.name}, {name}")
            self.components[name] = r.numel() // len(points.x)
            found[name] = inquiry.asked
        if any(channels.second for channels in found.values()):
            kinked = next((type(m).__name__ for m in self.network.modules() if isinstance(m, _KINKED)), None)
            if kinked:
                raise InputError(
                    f"{self.equation.name} has second derivatives, and those of {kinked} are zero almost everywhere; "
                    "use a smooth activation: tanh, sine or gelu (model.activation=tanh)."
                )
        return found

    def _check_outputs(self, x: Tensor, what: str) -> None:
        try:
            shape = tuple(self.network(x).shape)
        except RuntimeError as error:
            raise InputError(f"{what}: the network does not take points of {x.shape[1]} inputs: {error}") from error
        if shape != (len(x), self.equation.outputs):
            raise InputError(
                f"{what}: the network gives {shape} for {len(x)} points; the equation needs "
                f"({len(x)}, {self.equation.outputs})."
            )

    def _why_no_jets(self) -> str | None:
        generator = torch.Generator().manual_seed(0)
        try:
            for name in self.conditions:
                self._record(name, self._draw(name, 3, generator), 1.0)
        except NoJetError as reason:
            return str(reason)
        return None

    def _record(self, name: str, points: Points, scale: float) -> Any:
        named = {f"{COEFFICIENTS}.{key}": p for key, p in self.coefficients().items()}
        residual, channels = self.conditions[name].residual, self.channels[name]
        return record(self.network, named, residual, points.x, points.data, channels, scale)
