"""A first look at a network, on a few points: what the rules know, where the points are, what a point costs in memory.

Legend: n points, C outputs.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spectrain.errors import InputError
from spectrain.kernels.capture import Factors, Plan, UnknownUseError, assemble, gradients, placed, record
from spectrain.kernels.checks import check_mode, check_outputs, draws
from spectrain.kernels.factors import Dense
from spectrain.kernels.layouts import Layout, find
from spectrain.kernels.network import Inputs, Network, rows_of, take_rows
from spectrain.kernels.uses import Use

PROBE_POINTS = 3


@dataclass(frozen=True)
class Costs:
    """Bytes per point: of its factors, which are kept, and of the pass that makes them, which is not."""

    factors: int
    graph: int


@dataclass(frozen=True)
class Look:
    """What the first look has found."""

    plan: Plan
    costs: Costs
    sample: Factors  # factors of the probe points, for their sizes only
    C: int


def look(network: Network, x: Inputs, outputs: str, rest: frozenset[str], *, strict: bool, apart: bool = False) -> Look:
    """Check the network and plan its kernel from the first few points of x, the parameters `rest` by the Jacobian.

    Raises InputError for networks without a kernel, and, if strict, where no rule covers a parameter.
    """
    check_mode(network)
    few = network.inputs(take_rows(x, slice(0, PROBE_POINTS)))
    while True:
        try:
            return _look(network, few, Plan(outputs, rest, (), (), apart))
        except UnknownUseError as found:
            rest = widened(rest, found, strict)


def widened(rest: frozenset[str], found: UnknownUseError, strict: bool) -> frozenset[str]:
    """The parameters of the Jacobian path after another use was found that no rule knows."""
    if strict:
        raise InputError(
            f"No layer rule covers all uses of {found}; use method='auto', or register a rule for that module."
        ) from None
    return rest | found.names


def _look(network: Network, x: Inputs, plan: Plan) -> Look:
    saved, drew = _Saved(network), draws(network)
    with torch.autograd.graph.saved_tensors_hooks(saved.count, lambda t: t):
        f, uses = record(network, x, plan.rest)
    check_outputs(network, x, f.detach(), drew(network.module, None, None))
    C = f.shape[1]
    sample, layouts = _first_factors(f, uses, plan)
    plan = replace(plan, uses=tuple(use.names for use in uses), layouts=layouts)
    outputs = 1 if plan.outputs == "sum" else C
    for name in plan.rest:
        sample[(name,)] = Dense(f.new_zeros(1, 1, 1).expand(f.shape[0], 1, network.params[name].numel()))
    sample = {names: factor.with_outputs(outputs) for names, factor in sample.items()}
    if not sample or not (f.requires_grad or plan.rest):
        raise InputError("No parameter has an effect on the outputs, so the kernel is zero everywhere.")
    kept = sum(factor.row_bytes for factor in sample.values())
    activations = saved.bytes() // rows_of(x)
    # The pass holds what autograd saved, as much again while it runs, and a copy of the factors; a Jacobian pass holds
    # a gradient with respect to every saved tensor for every output at once, and copies of the Jacobian on its way.
    jacobian = sum(sample[(name,)].row_bytes for name in plan.rest)
    graph = 2 * activations + 2 * kept + (2 * activations * outputs + 3 * jacobian if plan.rest else 0)
    return Look(plan, Costs(kept, graph), sample, C)


class _Saved:
    """Counts the tensors that autograd saves, except the network's own."""

    def __init__(self, network: Network) -> None:
        self._own = {t.untyped_storage().data_ptr() for t in (*network.params.values(), *network.constants.values())}
        self._seen: dict[int, int] = {}

    def count(self, t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in self._own:
            self._seen[storage.data_ptr()] = storage.nbytes()
        return t

    def bytes(self) -> int:
        return sum(self._seen.values())


def _first_factors(f: Tensor, uses: list[Use], plan: Plan) -> tuple[Factors, tuple[Layout, ...]]:
    """Factors of a random mix of the outputs, and where the points are in each use."""
    n = f.shape[0]
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(n, generator=generator, dtype=torch.float64).to(f)
    columns = torch.randn(f.shape[1], generator=generator, dtype=torch.float64).to(f)
    edges = [use.edge for use in uses]
    plain = gradients((f @ columns).sum(), edges, keep_graph=True)
    weighted = gradients(f @ columns @ points, edges, keep_graph=False)
    tolerance = 100 * float(torch.finfo(f.dtype).eps) ** 0.75
    found = [_layout(use, one, two, points, tolerance) for use, one, two in zip(uses, plain, weighted, strict=True)]
    lost = frozenset().union(*(use.parameters for use, layout in zip(uses, found, strict=True) if layout is None))
    if lost:
        raise UnknownUseError(lost)
    layouts = tuple(layout for layout in found if layout is not None)
    b = [placed(use, grad, f, layout) for use, grad, layout in zip(uses, plain, layouts, strict=True)]
    return assemble(uses, b, n, replace(plan, layouts=layouts)), layouts


def _layout(use: Use, plain: Tensor | None, weighted: Tensor | None, points: Tensor, tolerance: float) -> Layout | None:
    axes = use.form.axes(use.shape)
    if plain is None or weighted is None:
        plain = weighted = points.new_zeros(1).expand(use.shape)
    return find(plain, weighted, points, axes, tolerance)
