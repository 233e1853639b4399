"""The empirical neural tangent kernel of any network.

Legend: n, m points; C outputs; P parameters; J [nC, P] the Jacobian of the outputs with respect to the parameters.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.kernels import rules as _rules  # noqa: F401  (registers the rules of torch's own layers)
from spectrain.kernels.capture import UnknownUse, capture
from spectrain.kernels.factors import Factor, add_gram
from spectrain.kernels.jacobian import jacobian_factors
from spectrain.kernels.network import Inputs, Network, rows_of, undisturbed

Outputs = Literal["trace", "sum", "full"]
Method = Literal["auto", "layerwise", "jacobian"]


def empirical_ntk(
    module: nn.Module,
    x1: Inputs,
    x2: Inputs | None = None,
    *,
    outputs: Outputs = "trace",
    method: Method = "auto",
    params: Sequence[str] | Callable[[str], bool] | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "n m *outputs"]:
    """The empirical NTK K = J1 J2^T of a module, exact, without per-sample gradients where a layer is known.

        outputs="trace":  K[i, j]       = (1/C) sum_c  df_c(x1_i)/dw . df_c(x2_j)/dw
        outputs="sum":    K[i, j]       = dg(x1_i)/dw . dg(x2_j)/dw,   g = sum_c f_c / sqrt(C)
        outputs="full":   K[i, j, c, e] = df_c(x1_i)/dw . df_e(x2_j)/dw

    `x1`, `x2`: a tensor [n, ...], or a tuple or dict of them (the module's arguments); x2=None means x1. K is not divided by n.
    `method`: "layerwise" uses the rules of known layers, K = sum over layers of (A A^T + 1) o (B B^T), and refuses if a
    parameter is left over; "jacobian" uses torch.func for all; "auto" uses the rules where it can and the Jacobian for the
    remaining parameters. Frozen parameters (requires_grad=False) are left out; `params` (names, or a function of a name)
    selects fewer. `dtype` computes in another precision than the network's own, which is never below float32.
    The module's mode, hooks, gradients, buffers and random numbers stay as they were.

    Raises InputError for inputs or modules that have no kernel, and says which and why.
    Source: Jacot, Gabriel, Hongler 2018 (arXiv 1806.07572); the layer Gram as in docs/kernels.md.
    """
    for key, value, kind in (("outputs", outputs, Outputs), ("method", method, Method)):
        if value not in get_args(kind):
            raise InputError(f"{key} is {value!r}; choose one of {', '.join(map(repr, get_args(kind)))}.")
    network = Network(module, params=params, dtype=dtype)
    with undisturbed(network):
        rest = frozenset(network.params) if method == "jacobian" else frozenset[str]()
        points = [network.inputs(x) for x in (x1, x2) if x is not None]
        while True:
            try:
                sides = [_all_factors(network, x, outputs, rest) for x in points]
                break
            except UnknownUse as found:
                if method == "layerwise":
                    raise InputError(
                        f"No layer rule covers all uses of {found}; use method='auto', or register a rule."
                    ) from None
                rest |= found.names
        K = _assemble(sides[0], sides[-1], rows_of(points[0]), rows_of(points[-1]), outputs)
    K = K.permute(0, 2, 1, 3)
    return K.contiguous() if outputs == "full" else K[:, :, 0, 0]


def _all_factors(network: Network, x: Inputs, outputs: str, rest: frozenset[str]) -> dict[tuple[str, ...], Factor]:
    known = capture(network, x, outputs, rest) if len(rest) < len(network.params) else {}
    return known | jacobian_factors(network, x, outputs, rest)


def _assemble(
    left: dict[tuple[str, ...], Factor], right: dict[tuple[str, ...], Factor], n: int, m: int, outputs: str
) -> Float[Tensor, "n C m C"]:
    some = next(iter(left.values()))
    C = some.tensor.shape[1] if outputs == "full" else 1
    K = some.tensor.new_zeros(n, C, m, C)
    for names in left:
        add_gram(K, left[names], right[names])
    return K
