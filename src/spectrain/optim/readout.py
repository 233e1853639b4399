"""The last layer by least squares: what a network could say with the features that it has.

Shapes: n points, d = its inputs, w features of the last layer, C outputs.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.preconditioners import evaluating

# Of the features' mean square: from 1e-10 to 1e-5 the PSNR of photographs is the same to .1 dB (docs/photographs.md).
RIDGE = 1e-6


def solve_readout(
    network: nn.Module,
    x: Tensor,
    y: Float[Tensor, "n C"],
    *,
    ridge: float = RIDGE,
    chunk_size: int = 16384,
) -> None:
    """Put into the last layer the weights that minimise the squared error on (x, y), the layers before it held fixed.

    Its change D [w, C] (bias included) minimises ``|Y - f(X) - A D|^2 + ridge m |D|^2``, with A [n, w] the features
    that the layer is given and m the mean of the diagonal of ``A^T A``: the squared error never grows, and where the
    points say nothing the weights stay. This is the inner problem of variable projection (Golub and Pereyra 1973, SIAM
    J. Numer. Anal. 10). Products in the network's precision, sums over chunks and the factor in float64; costs a
    forward pass (in evaluation mode), n w^2 and w^3/3. Features that are not finite change nothing.

    Raises:
        InputError: the network does not end with a linear layer, or that layer is frozen, shares its weights, or is in
            half precision, which rounds the solution away; y is not of the output's shape.
    """
    layer = readout(network, x[:2])
    weight, bias = layer._parameters["weight"], layer._parameters.get("bias")
    assert weight is not None
    if tuple(y.shape) != (len(x), len(weight)):
        raise InputError(f"y is {list(y.shape)}, and the network's output {[len(x), len(weight)]}; give them alike.")
    w = weight.shape[1] + (bias is not None)
    gram: Tensor = torch.zeros(w, w, dtype=torch.float64, device=x.device)
    moment: Tensor = torch.zeros(w, y.shape[1], dtype=torch.float64, device=x.device)
    with torch.no_grad(), evaluating(network):
        for points, values in zip(x.split(chunk_size), y.split(chunk_size), strict=True):
            features, output = _features(network, layer, points)
            residual = values.to(features) - output.to(features)
            gram.add_(features.T @ features)
            moment.add_(features.T @ residual)
        gram.diagonal().add_(ridge * gram.diagonal().mean())
        factor, failed = torch.linalg.cholesky_ex(gram)
        if bool(failed) or not bool(torch.isfinite(moment).all()):
            return
        change = torch.cholesky_solve(moment, factor)
        weight.add_(change[: weight.shape[1]].T.to(weight))
        if bias is not None:
            bias.add_(change[-1].to(bias))


@contextmanager
def solved_readout(network: nn.Module, x: Tensor, y: Float[Tensor, "n C"], **options: Any) -> Iterator[None]:
    """`solve_readout` for as long as the context lasts, for an evaluation on the way: training sees nothing of it.

    Raises:
        InputError: as `solve_readout`.
    """
    layer = readout(network, x[:2])
    kept = [(p, p.detach().clone()) for p in layer.parameters(recurse=False)]
    solve_readout(network, x, y, **options)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, trained in kept:
                p.copy_(trained)


def readout(network: nn.Module, x: Tensor) -> nn.Module:
    """The layer with a `weight` [C, w], and perhaps a `bias` [C], that makes the network's output at x, linearly.

    Raises:
        InputError: there is none, or it cannot be solved for.
    """
    made: list[tuple[nn.Module, Tensor, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda module, args, output: made.append((module, args[0], output)))
        for module in network.modules()
        if "weight" in module._parameters
    ]
    try:
        with torch.no_grad(), evaluating(network):
            output = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    last = next((use for use in reversed(made) if use[2] is output), None)
    if last is None or not _is_linear(*last):
        raise InputError(
            f"{type(network).__name__} does not end with a linear layer (nn.Linear or NTKLinear) whose output is the "
            "network's own: there is none to solve for; take readout=trained."
        )
    layer = last[0]
    owners = [name for name, p in network.named_parameters(remove_duplicate=False) if p is layer.weight]
    if len(owners) > 1 or sum(module is layer for module, *_ in made) > 1:
        raise InputError(
            f"The last layer's weights are used elsewhere too ({', '.join(owners)}); take readout=trained."
        )
    if layer.weight.dtype not in (torch.float32, torch.float64) or output.dtype != layer.weight.dtype:
        raise InputError("The last layer works in half precision, which rounds a solution away; take readout=trained.")
    if not all(p.requires_grad for p in layer.parameters(recurse=False)):
        raise InputError("The last layer is frozen, so it must not be solved for; take readout=trained.")
    return layer


def _is_linear(layer: nn.Module, given: Tensor, output: Tensor) -> bool:
    """Whether the layer's output is ``A W^T`` of its weight (and bias), by the numbers, where they are finite."""
    weight, bias = layer._parameters["weight"], layer._parameters.get("bias")
    if weight is None or weight.ndim != 2 or given.ndim != 2 or given.shape[1] != weight.shape[1]:
        return False
    columns = weight if bias is None else torch.cat([weight, bias[:, None]], 1)
    made = _scaled(layer, given).to(columns) @ columns.detach().T
    largest = float(output.abs().max())
    # 2 %: half precision, which is refused by name, has no more digits.
    return not math.isfinite(largest) or torch.allclose(made, output.to(made), rtol=0.02, atol=0.02 * largest)


def _features(network: nn.Module, layer: nn.Module, x: Tensor) -> tuple[Float[Tensor, "n w"], Float[Tensor, "n C"]]:
    """What the weights, and the bias, of the layer are multiplied with; and the network's output."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        output = network(x)
    finally:
        hook.remove()
    return _scaled(layer, seen[-1]), output


def _scaled(layer: nn.Module, given: Float[Tensor, "n w"]) -> Float[Tensor, "n w"]:
    """With the factors of `NTKLinear`, as `scaled_groups` reads them, and a column for the bias."""
    features = getattr(layer, "weight_scale", 1.0) * given
    if layer._parameters.get("bias") is None:
        return features
    return torch.cat([features, features.new_full((len(features), 1), getattr(layer, "bias_scale", 1.0))], 1)
