"""One recorded forward and one backward per output: the factors of every parameter that the rules know.

Legend: n points, C outputs, T positions, d inputs and o outputs of a layer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge

from spectrain.errors import InputError
from spectrain.kernels.bare import BareUses
from spectrain.kernels.factors import Factor, join
from spectrain.kernels.layouts import Layout
from spectrain.kernels.network import Inputs, Network
from spectrain.kernels.tape import Tape, recording
from spectrain.kernels.uses import Names, Use

Factors = dict[Names, Factor]


class UnknownUseError(Exception):
    """Parameters turned out to be used where no rule sees it; they belong on the Jacobian path."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(", ".join(sorted(names)))
        self.names = names


@dataclass(frozen=True)
class Plan:
    """What a first look at the network has shown, and what is asked for."""

    outputs: str
    rest: frozenset[str]  # the parameters of the Jacobian path
    uses: tuple[tuple[str | None, str | None], ...]  # names of the parameters of every recorded use, in order
    layouts: tuple[Layout, ...]  # where the points are in each
    apart: bool = False  # every parameter has a factor of its own, also a bias


def cotangents(f: Float[Tensor, "n C"], outputs: str) -> list[Tensor]:
    """What to differentiate, each [n]: every output, or their sum over sqrt(C).

    The trace's 1/C is split between the two sides of the kernel.
    """
    C = f.shape[1]
    if outputs == "sum":
        return [f.sum(1) / C**0.5]
    return [column / C**0.5 if outputs == "trace" else column for column in f.unbind(1)]


def record(network: Network, x: Inputs, rest: frozenset[str]) -> tuple[Float[Tensor, "n C"], list[Use]]:
    """The outputs, and every use of the parameters outside `rest`.

    Raises UnknownUseError if a parameter outside `rest` is used where no rule sees it.
    """
    tape = Tape(network.params, skip=rest)
    with recording(network.module, tape), BareUses(tape):
        f = network(network.params, x)
    hidden = _leaves_reached(f, network.originals)
    if hidden:
        raise InputError(
            f"The network reaches its parameters {', '.join(sorted(hidden))} by other ways than its modules' "
            "attributes (a list or a closure that holds them), so they cannot be told apart. Use them through self."
        )
    unknown = _leaves_reached(f, network.params) - rest
    if unknown:
        raise UnknownUseError(unknown)
    check_inputs(tape.uses)
    return f, tape.uses


def check_inputs(uses: Sequence[Use]) -> None:
    """Refuse layers whose recorded input has changed since."""
    for use in uses:
        if use.a is not None and use.a._version != use.version:
            raise InputError(
                f"The input of the layer with parameters {', '.join(sorted(use.parameters))} is changed in place after "
                "the layer has read it. Write that operation out of place."
            )


def capture(network: Network, x: Inputs, plan: Plan) -> Factors:
    """Factors of the parameters outside `plan.rest`, by their names (a weight and its bias may be one factor)."""
    f, uses = planned(network, x, plan)
    return assemble(uses, output_gradients(f, uses, plan), f.shape[0], plan)


def planned(network: Network, x: Inputs, plan: Plan, *, finite: bool = True) -> tuple[Float[Tensor, "n C"], list[Use]]:
    """`record`, of uses that are those of the plan and of outputs that are `finite`."""
    f, uses = record(network, x, plan.rest)
    if finite and not bool(torch.isfinite(f.detach()).all()):
        raise FloatingPointError
    if tuple(use.names for use in uses) != plan.uses:
        # The path through the network depends on the data: no plan holds for all points.
        raise UnknownUseError(frozenset(network.params) - plan.rest)
    return f, uses


def _leaves_reached(f: Tensor, params: Mapping[str, Tensor]) -> frozenset[str]:
    """The parameters that are leaves of f's autograd graph."""
    names = {id(p): name for name, p in params.items()}
    return frozenset(names[id(leaf)] for leaf in leaves(f) if id(leaf) in names)


def leaves(f: Tensor) -> Iterator[Tensor]:
    """The leaves of f's autograd graph."""
    seen, stack = set(), [f.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        stack.extend(parent for parent, _ in node.next_functions)


def output_gradients(f: Tensor, uses: Sequence[Use], plan: Plan, *, keep_graph: bool = False) -> list[Tensor]:
    """What every use keeps of d f_c / d z, the points first: a list of [n, C, ...].

    `keep_graph` leaves the graph for one backward more.
    """
    targets = cotangents(f, plan.outputs)
    if len(targets) == 1:
        return kept_gradients(targets[0].sum(), f, uses, plan.layouts, keep_graph=keep_graph)
    found: list[Tensor] = []
    for c, target in enumerate(targets):
        rows = kept_gradients(target.sum(), f, uses, plan.layouts, keep_graph=keep_graph or c + 1 < len(targets))
        found = found or [row.new_empty(row.shape[0], len(targets), *row.shape[2:]) for row in rows]
        for outputs, row in zip(found, rows, strict=True):
            outputs[:, c : c + 1] = row
    return found


@contextmanager
def arriving(
    f: Float[Tensor, "n C"], uses: Sequence[Use], layouts: Sequence[Layout], take: Callable[[int, Tensor], None]
) -> Iterator[None]:
    """Within, a backward pass from f calls take(u, b) with what use u keeps of its gradient, b [n, 1, ...].

    It does so on its way, and goes on when `take` returns; of a use that the pass does not reach b is zero.
    """

    def arrived(u: int, gradients: Sequence[Tensor | None]) -> None:
        take(u, placed(uses[u], gradients[uses[u].edge.output_nr], f, layouts[u]))

    handles = [use.edge.node.register_prehook(partial(arrived, u)) for u, use in enumerate(uses)]
    try:
        yield
    finally:
        for handle in handles:  # a hook holds the graph that holds it
            handle.remove()


def kept_gradients(
    target: Tensor, f: Float[Tensor, "n C"], uses: Sequence[Use], layouts: Sequence[Layout], *, keep_graph: bool
) -> list[Tensor]:
    """What every use keeps of the gradient of one target: a list of [n, 1, ...]."""
    grads = gradients(target, [use.edge for use in uses], keep_graph=keep_graph)
    return [placed(use, grad, f, layout) for use, grad, layout in zip(uses, grads, layouts, strict=True)]


def placed(use: Use, grad: Tensor | None, f: Float[Tensor, "n C"], layout: Layout) -> Tensor:
    """What a use keeps of one gradient d f / d z (None: zero), the points first."""
    n = f.shape[0]
    grad = f.new_zeros(1).expand(use.shape) if grad is None else grad
    a = None if use.a is None else layout.points_first(use.a, n)
    return use.form.placed(layout).kept(a, layout.points_first(grad, n).unsqueeze(1))


def gradients(target: Tensor, edges: Sequence[GradientEdge], *, keep_graph: bool) -> Sequence[Tensor | None]:
    """The target's gradient at every edge, None where there is none."""
    if not edges or not target.requires_grad:
        return [None] * len(edges)
    return torch.autograd.grad(target, list(edges), allow_unused=True, retain_graph=keep_graph)


def assemble(uses: Sequence[Use], b: Sequence[Tensor], n: int, plan: Plan) -> Factors:
    """Factors from uses and their output gradients b [n, C, ...], by the names of their parameters."""
    fused = set() if plan.apart else _fused({use.names for use in uses})
    parts: dict[Names, list[Factor]] = {}
    for use, grad, layout in zip(uses, b, plan.layouts, strict=True):
        weight, bias = use.names
        form = use.form.placed(layout)
        a = None if use.a is None else layout.points_first(use.a, n)
        if weight and bias and use.names in fused:
            parts.setdefault((weight, bias), []).append(form.weight(a, grad, bias=True))
            continue
        if weight:
            parts.setdefault((weight,), []).append(form.weight(a, grad, bias=False))
        if bias:
            parts.setdefault((bias,), []).append(form.bias(grad))
    return {names: join(factors) for names, factors in parts.items()}


def _fused(pairs: set[tuple[str | None, str | None]]) -> set[tuple[str | None, str | None]]:
    """A weight and its bias share one Gram matrix unless one of them is also used with another partner."""
    return {pair for pair in pairs if all(pair == other or not (set(pair) & set(other)) - {None} for other in pairs)}
