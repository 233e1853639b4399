"""The factors of a trace kernel in parts: of layers over many positions one output's after another's.

Legend: n points, C outputs, T positions, o outputs of a layer.
The Gram matrices of the parts add up to the kernel, so that a part is let go before the next one is made. Of a layer
over T tokens there are n C T o numbers of output gradients; in parts there are n T o at a time, used where the backward
pass has left them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from spectrain.kernels.capture import Factors, Plan, arriving, assemble, cotangents, leaves, planned
from spectrain.kernels.factors import Outer
from spectrain.kernels.gram import Pair, by_columns
from spectrain.kernels.multiples import Multiples
from spectrain.kernels.network import Inputs, Network
from spectrain.kernels.planning import Look
from spectrain.kernels.uses import Names, Use


def one_by_one(look: Look, n: int, room: float) -> frozenset[Names]:
    """The layers whose Gram matrix of n points is a sum over outputs, without work that the outputs share.

    Those are outer products by columns (convolutions share their patches), of parameters that are used once. None where
    the pass of the network over all n points at once, with one output of these layers, takes more than `room` bytes.
    """
    if look.plan.outputs != "trace" or look.plan.apart:
        return frozenset()
    times = Counter(name for names in look.plan.uses for name in names if name)
    found, saved = [], 0
    for names, factor in look.sample.items():
        if isinstance(factor, Outer) and factor.C > 1 and all(times[name] == 1 for name in names):
            points = factor.like([t[:1].expand(n, *t.shape[1:]) for t in factor.tensors()])
            if by_columns(Pair(points, points, True, 0), 1):
                found.append(names)
                saved += 2 * (factor.row_bytes - factor.output(0).row_bytes)
    return frozenset(found if n * (look.costs.graph - saved) <= room else [])


def in_parts(
    network: Network, x: Inputs, plan: Plan, single: frozenset[Names], take: Callable[[Factors], None]
) -> None:
    """`capture` in parts, each of which is `take`n and let go before the next one is made.

    First the layers in `single`, one output after another, each as the backward pass reaches it; in the end the other
    layers with all their outputs.
    """
    f, uses = planned(network, x, plan)
    targets = cotangents(f, plan.outputs)
    gathered: dict[int, Tensor] = {}
    alone = [tuple(name for name in use.names if name) in single for use in uses]
    multiples: dict[int, Multiples] = {}  # of outputs from the first on
    c = 0

    def taken(u: int, b: Tensor) -> None:
        take(_assembled(uses, {u: b}, len(f), plan))

    def arrived(u: int, b: Tensor) -> None:
        if not alone[u]:
            if u not in gathered:
                gathered[u] = b.new_zeros(len(b), len(targets), *b.shape[2:])
            gathered[u][:, c : c + 1] = b
        elif c == 0:
            multiples[u] = Multiples(b)
        elif u not in multiples:
            taken(u, b)
        elif not multiples[u].add(b):
            taken(u, multiples.pop(u).total())
            taken(u, b)

    ends = list(leaves(f))
    with arriving(f, uses, plan.layouts, arrived):
        for c, target in enumerate(targets):
            torch.autograd.grad(target.sum(), ends, allow_unused=True, retain_graph=c + 1 < len(targets))
    for u in list(multiples):
        taken(u, multiples.pop(u).total())
    take(_assembled(uses, gathered, len(f), plan))


def _assembled(uses: Sequence[Use], b: Mapping[int, Tensor], n: int, plan: Plan) -> Factors:
    """Factors of some of the uses."""
    layouts = tuple(plan.layouts[u] for u in sorted(b))
    return assemble([uses[u] for u in sorted(b)], [b[u] for u in sorted(b)], n, replace(plan, layouts=layouts))
