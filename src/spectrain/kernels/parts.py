"""The factors of a trace kernel in parts: of layers over many positions one output's after another's.

Legend: n points, C outputs, T positions, o outputs of a layer.
The Gram matrices of the parts add up to the kernel, so that a part is let go before the next one is made. Of a layer
over T tokens there are n C T o numbers of output gradients; in parts there are n T o at a time, used where the backward
pass has left them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from spectrain.kernels.capture import Factors, Plan, assemble, beside, cotangents, kept_gradients, planned
from spectrain.kernels.factors import Outer
from spectrain.kernels.gram import Pair, by_columns
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


def in_parts(network: Network, x: Inputs, plan: Plan, single: frozenset[Names]) -> Iterator[Factors]:
    """`capture` in parts: every output's factors of the layers in `single`, and in the end the other layers' factors.

    A part is emptied when the next one is asked for.
    """
    f, uses = planned(network, x, plan)
    alone = [tuple(name for name in use.names if name) in single for use in uses]
    gathered: list[Tensor] = []
    targets = cotangents(f, plan.outputs)
    for c, target in enumerate(targets):
        rows = kept_gradients(target.sum(), f, uses, plan.layouts, keep_graph=c + 1 < len(targets))
        gathered = beside(gathered, [row for row, one in zip(rows, alone, strict=True) if not one], c, len(targets))
        part = _assembled(uses, alone, True, [row for row, one in zip(rows, alone, strict=True) if one], plan)
        del rows
        yield part
        part.clear()
    yield _assembled(uses, alone, False, gathered, plan)


def _assembled(uses: Sequence[Use], alone: Sequence[bool], which: bool, b: Sequence[Tensor], plan: Plan) -> Factors:
    """Factors of the uses that go alone, or of those that do not."""
    chosen = [u for u, one in enumerate(alone) if one == which]
    layouts = tuple(plan.layouts[u] for u in chosen)
    return assemble([uses[u] for u in chosen], b, b[0].shape[0], replace(plan, layouts=layouts)) if b else {}
