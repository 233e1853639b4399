"""A first look at a network, on a few points: what the rules know, where the points are, what a point costs in memory.

Legend: n points, C outputs.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spectrain.errors import InputError
from spectrain.kernels.capture import Factors, Plan, UnknownUseError, factors_of, record
from spectrain.kernels.checks import check_mode, check_outputs
from spectrain.kernels.jacobian import jacobian_factors
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
    sample: Factors  # factors of the probe points
    C: int


def look(network: Network, x: Inputs, outputs: str, rest: frozenset[str], *, strict: bool, apart: bool = False) -> Look:
    """Check the network and plan its kernel from the first few points of x, the parameters `rest` by the Jacobian.

    Raises InputError for networks without a kernel, and, if strict, where no rule covers a parameter.
    """
    check_mode(network)
    few = network.inputs(take_rows(x, slice(0, PROBE_POINTS)))
    C = check_outputs(network, few)
    while True:
        try:
            return _look(network, few, Plan(outputs, rest, (), (), apart), C)
        except UnknownUseError as found:
            rest = widened(rest, found, strict)


def widened(rest: frozenset[str], found: UnknownUseError, strict: bool) -> frozenset[str]:
    """The parameters of the Jacobian path after another use was found that no rule knows."""
    if strict:
        raise InputError(
            f"No layer rule covers all uses of {found}; use method='auto', or register a rule for that module."
        ) from None
    return rest | found.names


def _look(network: Network, x: Inputs, plan: Plan, C: int) -> Look:
    saved = _Saved(network)
    with torch.autograd.graph.saved_tensors_hooks(saved.count, lambda t: t):
        f, uses = record(network, x, plan.rest)
    plan = replace(plan, uses=tuple(use.names for use in uses), layouts=_layouts(f, uses))
    sample = factors_of(f, uses, plan) | jacobian_factors(network, x, plan)
    if not sample or not (f.requires_grad or plan.rest):
        raise InputError("No parameter has an effect on the outputs, so the kernel is zero everywhere.")
    kept = sum(factor.row_bytes for factor in sample.values())
    activations = saved.bytes() // rows_of(x)
    # The pass holds what autograd saved, as much again while it runs, and a copy of the factors; a Jacobian pass holds
    # a gradient with respect to every saved tensor for every output at once.
    graph = 2 * activations + 2 * kept + (2 * activations * (1 if plan.outputs == "sum" else C) if plan.rest else 0)
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


def _layouts(f: Tensor, uses: list[Use]) -> tuple[Layout, ...]:
    if not uses or not f.requires_grad:
        return (Layout(),) * len(uses)
    n = f.shape[0]
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(n, generator=generator, dtype=torch.float64).to(f)
    columns = torch.randn(f.shape[1], generator=generator, dtype=torch.float64).to(f)
    edges = [use.edge for use in uses]
    plain = torch.autograd.grad((f @ columns).sum(), edges, allow_unused=True, retain_graph=True)
    weighted = torch.autograd.grad(f @ columns @ points, edges, allow_unused=True, retain_graph=True)
    tolerance = 100 * float(torch.finfo(f.dtype).eps) ** 0.75
    layouts, lost = [], frozenset[str]()
    for use, one, two in zip(uses, plain, weighted, strict=True):
        layout = _layout(use, one, two, points, tolerance)
        layouts.append(layout or Layout())
        lost |= frozenset() if layout else use.parameters
    if lost:
        raise UnknownUseError(lost)
    return tuple(layouts)


def _layout(use: Use, plain: Tensor | None, weighted: Tensor | None, points: Tensor, tolerance: float) -> Layout | None:
    axes = use.form.axes(use.shape)
    if plain is None or weighted is None:
        plain = weighted = points.new_zeros(1).expand(use.shape)
    return find(plain, weighted, points, axes, tolerance)
