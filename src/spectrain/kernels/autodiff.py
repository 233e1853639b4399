"""Products with the Jacobian of the parameters that no rule knows, by reverse and forward differentiation.

Legend: n points, C outputs, E the outputs at hand.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from spectrain.kernels.capture import Plan, cotangents
from spectrain.kernels.network import Inputs, Network

Gradient = dict[str, Tensor]


def vjp(network: Network, plan: Plan, parts: Iterable[tuple[Inputs, Float[Tensor, "n E"]]], outputs: range) -> Gradient:
    """sum_ic v[i, c] d f_c(x_i) / dw over all parts."""
    total = {name: torch.zeros_like(network.params[name]) for name in sorted(plan.rest)}
    leaves = [network.params[name] for name in total]
    for x, v in parts:
        f = _outputs(network, network.params, x, plan, outputs)
        grads = (
            torch.autograd.grad((f * v).sum(), leaves, allow_unused=True) if f.requires_grad else [None] * len(leaves)
        )
        for name, grad in zip(total, grads, strict=True):
            if grad is not None:
                total[name] += grad
    return total


def jvp(network: Network, plan: Plan, x: Inputs, g: Gradient, outputs: range) -> Float[Tensor, "n E"]:
    """d f_c(x_i) / dw . g, by two reverse passes: f -> J^T u is linear in u, and its derivative along g is J g.

    Forward mode would do it in one pass, but has no formulas for several layers (fused attention, recurrent ones).
    """
    f = _outputs(network, network.params, x, plan, outputs)
    if not f.requires_grad:
        return torch.zeros_like(f)
    u = torch.zeros_like(f, requires_grad=True)
    leaves = [network.params[name] for name in g]
    grads = torch.autograd.grad(f, leaves, u, create_graph=True, allow_unused=True)
    along = [
        (grad * g[name]).sum() for grad, name in zip(grads, g, strict=True) if grad is not None and grad.requires_grad
    ]
    if not along:
        return torch.zeros_like(f)
    return torch.autograd.grad(torch.stack(along).sum(), u)[0]


def _outputs(
    network: Network, params: dict[str, Tensor], x: Inputs, plan: Plan, outputs: range
) -> Float[Tensor, "n E"]:
    # Fused attention has no second derivative.
    held = {name: p if name in plan.rest else p.detach() for name, p in params.items()}
    with sdpa_kernel(SDPBackend.MATH):
        return torch.stack(cotangents(network(held, x), plan.outputs), 1)[:, outputs.start : outputs.stop]
