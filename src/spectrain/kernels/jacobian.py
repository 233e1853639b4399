"""Per-sample Jacobians by torch.func, for the parameters that no rule knows, and as the oracle for the others.

Legend: n points, C outputs, p parameters.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from spectrain.kernels.capture import cotangents
from spectrain.kernels.factors import Dense, Factor
from spectrain.kernels.network import Inputs, Network


def jacobian_factors(network: Network, x: Inputs, outputs: str, names: Iterable[str]) -> dict[tuple[str, ...], Factor]:
    """G[i, c] of each named parameter, explicitly."""
    chosen = {name: network.params[name].detach() for name in sorted(names)}
    others = {name: p.detach() for name, p in network.params.items() if name not in chosen}
    if not chosen:
        return {}

    def one_point(params: dict[str, Tensor], row: Inputs) -> Tensor:
        batch = tree_map_only(Tensor, lambda leaf: leaf.unsqueeze(0), row)
        return torch.stack(cotangents(network({**others, **params}, batch), outputs), 1)[0]

    jacobian = torch.func.vmap(torch.func.jacrev(one_point), in_dims=(None, 0))(chosen, x)
    return {(name,): Dense(g.flatten(2)) for name, g in jacobian.items()}
