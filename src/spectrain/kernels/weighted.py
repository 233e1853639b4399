"""The tangent kernel in the metric of an optimizer: K_D = J D J^T.

Legend: n, m points; T positions, d inputs and o outputs of a layer; J the Jacobian with respect to the parameters.
For D = L L^T (x) R R^T on a weight [o, d] the layer Gram keeps its form: K = (A R R^T A^T) o (B L L^T B^T).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.kernels.capture import capture
from spectrain.kernels.factors import Dense, Factor, Outer
from spectrain.kernels.gram import Pair, add_gram, mirror
from spectrain.kernels.memory import budget_bytes
from spectrain.kernels.network import Network, rows_of, undisturbed
from spectrain.kernels.planning import look


@dataclass(frozen=True)
class Root:
    """D^(1/2) of one parameter.

    Of a weight [o, d] it is ``outputs (x) inputs``, each the diagonal of a matrix or the matrix itself ([o, o] and
    [d, d]); of any other parameter `outputs` alone, a diagonal of the parameter's shape.
    """

    outputs: Tensor
    inputs: Tensor | None = None


def weighted_ntk(module: nn.Module, x1: Any, x2: Any = None, *, roots: Mapping[str, Root]) -> Float[Tensor, "n m"]:
    """``(1/C) sum_c J1_c D J2_c^T``, D block diagonal, one `roots[name]` per trainable parameter; x2=None is x1.

    All factors are held at once: it is meant for landmarks. For linear layers and vectors of parameters.

    Raises:
        InputError: a layer whose gradients are no outer product of inputs and output gradients, such as a convolution.
    """
    network = Network(module)
    with undisturbed(network):
        plan = look(network, x1, "trace", frozenset(), strict=True, apart=True).plan
        sides = [
            {
                name: _times(name, factor, roots[name])
                for (name,), factor in capture(network, network.inputs(x), plan).items()
            }
            for x in ([x1] if x2 is None else [x1, x2])
        ]
        K = torch.zeros(rows_of(x1), rows_of(x1 if x2 is None else x2), dtype=network.dtype, device=network.device)
        budget = budget_bytes(None, network.device)
        for name in sides[0]:
            add_gram(K, Pair(sides[0][name], sides[-1][name], x2 is None, budget), 1)
        if x2 is None:
            mirror(K, 1)
    return K


def _times(name: str, factor: Factor, root: Root) -> Factor:
    """The factor of G D^(1/2)."""
    if isinstance(factor, Outer) and root.inputs is not None:
        return replace(factor, a=_product(factor.a, root.inputs), b=_product(factor.b, root.outputs))
    if isinstance(factor, Dense) and root.inputs is None:
        return replace(factor, g=factor.g * root.outputs.flatten().to(factor.g))
    raise InputError(
        f"The kernel in the optimizer's metric knows linear layers and vectors of parameters, but {name} is neither; "
        "leave the optimizer out of the refresh."
    )


def _product(t: Tensor, root: Tensor) -> Tensor:
    root = root.to(t)
    return t * root if root.ndim == 1 else t @ root
