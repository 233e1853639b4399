"""One recorded forward and one backward per output: the factors of every parameter that the rules know.

Legend: n points, C outputs, T positions, d inputs and o outputs of a layer.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.kernels.factors import Factor, Outer, join
from spectrain.kernels.network import Inputs, Network
from spectrain.kernels.tape import Tape, Use, recording


class UnknownUse(Exception):
    """Parameters turned out to be used where no rule sees it; they belong on the Jacobian path."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(", ".join(sorted(names)))
        self.names = names


def cotangents(f: Float[Tensor, "n C"], outputs: str) -> list[Tensor]:
    """What to differentiate, each [n]: every output, or their sum over sqrt(C); the trace's 1/C is split between both sides."""
    C = f.shape[1]
    if outputs == "sum":
        return [f.sum(1) / C**0.5]
    return [column / C**0.5 if outputs == "trace" else column for column in f.unbind(1)]


def capture(network: Network, x: Inputs, outputs: str, rest: frozenset[str]) -> dict[tuple[str, ...], Factor]:
    """Factors of the parameters outside `rest`, by the names of the parameters (a weight and its bias are one factor).

    Raises UnknownUse if a parameter outside `rest` is used where no rule sees it.
    """
    tape = Tape(network.params, skip=rest)
    with recording(network.module, tape):
        f = network(network.params, x)
    unknown = _leaves_reached(f, network.params) - rest
    if unknown:
        raise UnknownUse(unknown)
    for use in tape.uses:
        if use.a._version != use.version:
            raise InputError(
                f"The input of the layer with weight {use.weight!r} is changed in place after the layer has read it. "
                "Write that operation out of place."
            )
    return _factors(tape.uses, _output_gradients(f, tape.uses, outputs))


def _leaves_reached(f: Tensor, params: Mapping[str, Tensor]) -> frozenset[str]:
    """The parameters that are leaves of f's autograd graph."""
    names = {id(p): name for name, p in params.items()}
    found, seen, stack = set(), set(), [f.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = names.get(id(getattr(node, "variable", None)))
        if name is not None:
            found.add(name)
        stack.extend(parent for parent, _ in node.next_functions)
    return frozenset(found)


def _output_gradients(f: Tensor, uses: Sequence[Use], outputs: str) -> list[Tensor]:
    """d f_c / d z at every use: a list of [n, C, ...]."""
    targets = cotangents(f, outputs)
    n = f.shape[0]
    b = [f.new_zeros(n, len(targets), *use.shape[1:]) for use in uses]
    if not uses or not f.requires_grad:
        return b
    edges = [use.edge for use in uses]
    for c, target in enumerate(targets):
        grads = torch.autograd.grad(target.sum(), edges, allow_unused=True, retain_graph=c + 1 < len(targets))
        for buffer, grad in zip(b, grads, strict=True):
            if grad is not None:
                buffer[:, c] = grad
    return b


def _factors(uses: Sequence[Use], b: Sequence[Tensor]) -> dict[tuple[str, ...], Factor]:
    pairs = {(use.weight, use.bias) for use in uses}
    # A weight and its bias share one Gram matrix unless one of them is also used with another partner.
    fused = {pair for pair in pairs if all(pair == other or not _share(pair, other) for other in pairs)}
    parts: dict[tuple[str, ...], list[Factor]] = {}
    for use, grad in zip(uses, b, strict=True):
        grad = grad.reshape(*grad.shape[:2], -1, grad.shape[-1])
        a = use.a.reshape(use.a.shape[0], -1, use.a.shape[-1])
        ones = a.new_full((*a.shape[:2], 1), use.bias_scale)
        if use.weight and use.bias and (use.weight, use.bias) in fused:
            parts.setdefault((use.weight, use.bias), []).append(Outer(torch.cat([a, ones], 2), grad))
            continue
        if use.weight:
            parts.setdefault((use.weight,), []).append(Outer(a, grad))
        if use.bias:
            parts.setdefault((use.bias,), []).append(Outer(ones, grad))
    return {names: join(factors) for names, factors in parts.items()}


def _share(one: Iterable[str | None], other: Iterable[str | None]) -> bool:
    return bool((set(one) & set(other)) - {None})
