"""The metric D in which an adaptive optimizer takes its steps, as Kronecker products.

An optimizer that divides by the root of a second moment v moves the weights by D J^T c, so the outputs follow the
kernel J D J^T and not J J^T.
Shapes: o outputs and d inputs of a weight.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from spectrain.errors import InputError
from spectrain.kernels.weighted import Root


def optimizer_metric(network: nn.Module, optimizer: Optimizer) -> dict[str, Root]:
    """D^(1/2) of every trainable parameter, from the state of Adam, AdamW, NAdam, RAdam or SOAP.

    ``D = lr_scale / (sqrt(v) + eps)``; of a weight [o, d] the nearest ``a b^T`` in the logarithm, which is the
    geometric mean over each row and each column. SOAP's v lives in its eigenbases: ``D = (Q_L a Q_L^T) (x) (Q_R b
    Q_R^T)``. Before the optimizer has a second moment D is the identity.

    Raises:
        InputError: an optimizer that has stepped and holds no second moment of the parameters.
    """
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    states = {p: optimizer.state.get(p, {}) for p in network.parameters() if p.requires_grad}
    if not any(states.values()):
        return {name: _identity(p) for name, p in network.named_parameters() if p.requires_grad}
    missing = next((p for p, state in states.items() if "exp_avg_sq" not in state), None)
    if missing is not None:
        raise InputError(
            f"{type(optimizer).__name__} holds no second moment (exp_avg_sq) of a parameter of shape "
            f"{tuple(missing.shape)}, so its metric is unknown; leave the optimizer out of the refresh."
        )
    if not all(bool(state["exp_avg_sq"].any()) for state in states.values()):
        return {name: _identity(p) for name, p in network.named_parameters() if p.requires_grad}
    return {
        name: _root(states[p], groups[p].get("lr_scale", 1.0), groups[p]["eps"])
        for name, p in network.named_parameters()
        if p in states
    }


def _identity(p: Tensor) -> Root:
    return Root(torch.ones(len(p)), torch.ones(p.shape[1])) if p.ndim == 2 else Root(torch.ones_like(p))


def _root(state: dict[str, Any], scale: float, eps: float) -> Root:
    v = state["exp_avg_sq"]
    D = scale / (v.sqrt() + eps)
    if v.ndim != 2:
        return Root(D.sqrt())
    a, b = nearest_outer(D)
    left, right = state.get("Q") or ([], [])
    return Root(_rotated(left, a.sqrt()), _rotated(right, b.sqrt()))


def nearest_outer(D: Float[Tensor, "o d"]) -> tuple[Float[Tensor, " o"], Float[Tensor, " d"]]:
    """a, b > 0 that minimise ``|log D - log a b^T|``: the geometric means of rows and columns, the mean shared."""
    logs = D.log()
    half = logs.mean() / 2
    return (logs.mean(1) - half).exp(), (logs.mean(0) - half).exp()


def _rotated(Q: Any, diagonal: Tensor) -> Tensor:
    """``Q diag(diagonal)``, or the diagonal where there is no basis (SOAP then holds an empty list)."""
    rotated: Tensor = Q * diagonal if len(Q) else diagonal
    return rotated
