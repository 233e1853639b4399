"""The residual vector of a problem at some points: its values, its loss, and its Jacobian in factored or explicit form.

Legend: n residuals of all conditions, d inputs, m components of one condition's residual.
"""

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spectrain.errors import InputError
from spectrain.kernels import rank_rows
from spectrain.optim import DenseLinearization, FactoredLinearization, Linearization
from spectrain.pde.fields import JetField, PointField
from spectrain.pde.jets import Jet
from spectrain.pde.wrappers import COEFFICIENTS

if TYPE_CHECKING:
    from spectrain.pde.problem import Problem


class Points(NamedTuple):
    """Collocation points of one condition: x [n, d], and data [n, ...] where there are measurements."""

    x: Float[Tensor, "n d"]
    data: Tensor | None = None


def check_residual(r: Any, n: int, what: str) -> Tensor:
    """The residual, if it is a finite tensor [n] or [n, m]; otherwise InputError."""
    if not isinstance(r, Tensor) or r.ndim not in (1, 2) or len(r) != n:
        given = tuple(r.shape) if isinstance(r, Tensor) else type(r).__name__
        raise InputError(f"{what}: the residual is {given} for {n} points; it must be a tensor [{n}] or [{n}, m].")
    if not bool(torch.isfinite(r).all()):
        raise InputError(f"{what}: the residual has values that are not finite; check it, or the points it is given.")
    return r


class Residuals:
    """``r = concat over conditions of sqrt(weight / n) residual``, so that |r|^2 / 2 is the loss; points held fixed.

    Called, it returns r [n] with a graph (where gradients are on). `linearize()` returns r and its Jacobian's products,
    factored where the network allows it.
    """

    def __init__(
        self, problem: "Problem", points: Mapping[str, Points], weights: Mapping[str, float], *, shared: bool = False
    ) -> None:
        self._problem, self._shared = problem, shared
        self.points: dict[str, Points] = dict(points)
        self._scale = {name: math.sqrt(weights[name] / len(part.x)) for name, part in points.items()}

    def share(self, rank: int, world: int) -> "Residuals":
        """A rank's part of every condition's points, each residual with the weight that it has among all of them.

        Raises:
            InputError: a condition has fewer points than there are ranks.
        """
        part = copy.copy(self)
        part.points = {}
        for name, (x, data) in self.points.items():
            if len(x) < world:
                raise InputError(
                    f"{name} has {len(x)} points for {world} processes; give as many or more, or fewer processes."
                )
            mine = rank_rows(len(x), rank, world)
            part.points[name] = Points(x[mine], None if data is None else data[mine])
        return part

    def rows_of(self, rank: int, world: int) -> Int[Tensor, " r"]:
        """Where the residuals of that rank's share stand among all of them: conditions, their components, points."""
        found, start = [], 0
        for name, (x, _) in self.points.items():
            mine = torch.arange(len(x), device=x.device)[rank_rows(len(x), rank, world)]
            for _ in range(self._problem.components[name]):
                found.append(start + mine)
                start += len(x)
        return torch.cat(found)

    def __call__(self) -> Float[Tensor, " n"]:
        """The residual vector."""
        return torch.cat([part.T.flatten() for part in self.parts().values()])

    def loss(self) -> Float[Tensor, ""]:
        """``|r|^2 / 2``."""
        return 0.5 * self().square().sum()

    def parts(self) -> dict[str, Float[Tensor, "n m"]]:
        """The weighted residual of every condition."""
        by_jets = self._problem.by_jets
        return {name: (self._by_jets(name) if by_jets else self._by_points(name)) for name in self.points}

    def traces(self) -> dict[str, float]:
        """Each condition's part of trace(K)."""
        sizes = [part.numel() for part in self.parts().values()]
        parts = self.linearize().diagonal().split(sizes)
        return {name: float(part.sum()) for name, part in zip(self.points, parts, strict=True)}

    def linearize(self) -> Linearization:
        """r, J, and products with them."""
        problem = self._problem
        if not problem.by_jets:
            return self.explicit()
        blocks = [
            block for name, part in self.points.items() for block in problem._record(name, part, self._scale[name])
        ]
        shapes = {name: p.shape for name, p in problem.network.named_parameters() if p.requires_grad}
        return FactoredLinearization(blocks, shapes, shared=self._shared)

    def explicit(self) -> DenseLinearization:
        """r and J by vmap(jacrev), for any network; the oracle of the factored form."""
        params = {name: p.detach() for name, p in self._problem.network.named_parameters() if p.requires_grad}
        blocks, values = [], []
        for name, part in self.points.items():
            residual = self._one_point(name)
            axes = (None, 0, None if part.data is None else 0)
            grads = torch.func.vmap(torch.func.jacrev(residual), axes)(params, part.x, part.data)
            r = torch.func.vmap(residual, axes)(params, part.x, part.data)
            values.append(r.T.flatten())
            blocks.append(torch.cat([grad.transpose(0, 1).reshape(r.numel(), -1) for grad in grads.values()], 1))
        return DenseLinearization(torch.cat(values), torch.cat(blocks))

    def _by_jets(self, name: str) -> Tensor:
        problem, part = self._problem, self.points[name]
        jet: Any = problem.network(Jet.of_points(part.x, problem.channels[name]))
        field = JetField(jet, part.x, part.data, problem.coefficients())
        return self._scale[name] * problem.conditions[name].residual(field).reshape(len(part.x), -1)

    def _by_points(self, name: str) -> Tensor:
        part = self.points[name]
        params = {key: p for key, p in self._problem.network.named_parameters() if p.requires_grad}
        axes = (None, 0, None if part.data is None else 0)
        r: Tensor = torch.func.vmap(self._one_point(name), axes)(params, part.x, part.data)
        return r

    def _one_point(self, name: str) -> Any:
        """(parameters, x [d], data) -> weighted residual [m]."""
        network, condition, scale = self._problem.network, self._problem.conditions[name], self._scale[name]
        prefix = f"{COEFFICIENTS}."

        def residual(params: dict[str, Tensor], x: Tensor, data: Tensor | None) -> Tensor:
            coefficients = {k.removeprefix(prefix): p for k, p in params.items() if k.startswith(prefix)}
            field = PointField(
                lambda point: torch.func.functional_call(network, params, (point[None],))[0],
                x[None],
                None if data is None else data[None],
                coefficients,
            )
            return scale * condition.residual(field).reshape(-1)

        return residual
