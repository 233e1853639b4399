"""Per-sample Jacobians by torch.func, for the parameters that no rule knows, and as the oracle for the others.

Legend: n points, C outputs, p parameters.
"""

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from spectrain.kernels.capture import Factors, Plan, cotangents
from spectrain.kernels.factors import Dense
from spectrain.kernels.network import Inputs, Network, rows_of, take_rows


def jacobian_factors(network: Network, x: Inputs, plan: Plan) -> Factors:
    """G[i, c] of each parameter of `plan.rest`, explicitly."""
    chosen = {name: network.params[name].detach() for name in sorted(plan.rest)}
    if not chosen:
        return {}
    try:
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no batching rule
            jacobian = _by_vmap(network, x, plan.outputs, chosen)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        # vmap has no rule for some operations (recurrent cells, data-dependent control flow): row by row then.
        if isinstance(error, torch.OutOfMemoryError):
            raise
        jacobian = _row_by_row(network, x, plan.outputs, chosen)
    return {(name,): Dense(g.reshape(*g.shape[:2], -1)) for name, g in jacobian.items()}


def _by_vmap(network: Network, x: Inputs, outputs: str, chosen: dict[str, Tensor]) -> dict[str, Tensor]:
    others = {name: p.detach() for name, p in network.params.items() if name not in chosen}
    batched = tree_map(lambda leaf: 0 if isinstance(leaf, Tensor) and leaf.ndim else None, x)

    def one_point(params: dict[str, Tensor], row: Inputs) -> Tensor:
        batch = tree_map(lambda leaf, axis: leaf if axis is None else leaf.unsqueeze(0), row, batched)
        return torch.stack(cotangents(network({**others, **params}, batch), outputs), 1)[0]

    return dict(torch.func.vmap(torch.func.jacrev(one_point), in_dims=(None, batched))(chosen, x))


def _row_by_row(network: Network, x: Inputs, outputs: str, chosen: dict[str, Tensor]) -> dict[str, Tensor]:
    leaves = {name: p.clone().requires_grad_() for name, p in chosen.items()}
    params = {**{name: p.detach() for name, p in network.params.items()}, **leaves}
    rows = []
    for i in range(rows_of(x)):
        targets = cotangents(network(params, take_rows(x, slice(i, i + 1))), outputs)
        grads = [
            torch.autograd.grad(
                t.sum(), list(leaves.values()), allow_unused=True, retain_graph=True, materialize_grads=True
            )
            if t.requires_grad
            else [torch.zeros_like(p) for p in leaves.values()]
            for t in targets
        ]
        rows.append([torch.stack(per_output) for per_output in zip(*grads, strict=True)])
    return {name: torch.stack(per_row) for name, per_row in zip(leaves, zip(*rows, strict=True), strict=True)}
