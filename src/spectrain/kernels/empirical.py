"""The empirical neural tangent kernel of any network.

Legend: n, m points; C outputs; P parameters; J [nC, P] the Jacobian of the outputs with respect to the parameters.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from spectrain.errors import InputError
from spectrain.kernels import rules as _rules  # noqa: F401  (registers the rules of torch's own layers)
from spectrain.kernels.distributed import shared, world
from spectrain.kernels.memory import budget_bytes
from spectrain.kernels.network import Inputs, Network, undisturbed
from spectrain.kernels.run import Run

Outputs = Literal["trace", "sum", "full"]
Method = Literal["auto", "layerwise", "jacobian"]
Params = Sequence[str] | Callable[[str], bool]


@overload
def empirical_ntk(
    module: nn.Module,
    x1: Inputs,
    x2: Inputs | None = None,
    *,
    outputs: Outputs = "trace",
    method: Method = "auto",
    params: Params | None = None,
    per_parameter: Literal[False] = False,
    dtype: torch.dtype | None = None,
    memory_budget: int | float | str | None = None,
    out: Tensor | None = None,
    process_group: ProcessGroup | None = None,
    gather: bool = True,
    progress: bool = True,
) -> Float[Tensor, "n m *outputs"]: ...


@overload
def empirical_ntk(
    module: nn.Module,
    x1: Inputs,
    x2: Inputs | None = None,
    *,
    outputs: Outputs = "trace",
    method: Method = "auto",
    params: Params | None = None,
    per_parameter: Literal[True],
    dtype: torch.dtype | None = None,
    memory_budget: int | float | str | None = None,
    out: None = None,
    process_group: ProcessGroup | None = None,
    gather: bool = True,
    progress: bool = True,
) -> dict[str, Float[Tensor, "n m *outputs"]]: ...


def empirical_ntk(
    module: nn.Module,
    x1: Inputs,
    x2: Inputs | None = None,
    *,
    outputs: Outputs = "trace",
    method: Method = "auto",
    params: Params | None = None,
    per_parameter: bool = False,
    dtype: torch.dtype | None = None,
    memory_budget: int | float | str | None = None,
    out: Tensor | None = None,
    process_group: ProcessGroup | None = None,
    gather: bool = True,
    progress: bool = True,
) -> Tensor | dict[str, Tensor]:
    """The empirical NTK K = J1 J2^T of a module, exact, without per-sample gradients where a layer is known.

        outputs="trace":  K[i, j]       = (1/C) sum_c  df_c(x1_i)/dw . df_c(x2_j)/dw
        outputs="sum":    K[i, j]       = dg(x1_i)/dw . dg(x2_j)/dw,   g = sum_c f_c / sqrt(C)
        outputs="full":   K[i, j, c, e] = df_c(x1_i)/dw . df_e(x2_j)/dw

    `x1`, `x2`: a tensor [n, ...], or a tuple or dict of them (the module's arguments); x2=None means x1. K is not
    divided by n, so its eigenvalues are n times those of K/n, which the rest of the library speaks of.

    `method`: "layerwise" uses the rules of known layers, K = sum over layers of (A A^T + 1) o (B B^T), and refuses if a
    parameter is left over; "jacobian" uses torch.func for all; "auto" uses the rules where it can and the Jacobian for
    the remaining parameters. Frozen parameters (requires_grad=False) are left out; `params` (names, or a function of a
    name) selects fewer. `per_parameter` returns each parameter's share of K by its name; the shares add up to K.

    `dtype` computes in another precision than the network's own, which is never below float32. `memory_budget` ("2GiB",
    or bytes; default half of what is free) bounds everything beyond K. `out` takes the result: a tensor on any
    device, or `torch.from_numpy` of a `numpy.memmap`. With a `process_group` of torch.distributed every rank calls
    with the same module and points and computes its share; it gets all of K, or with `gather=False` its rows, those of
    `rank_rows`. Work over two seconds shows its progress on stderr unless `progress=False`.
    The module's mode, hooks, gradients, buffers and random numbers stay as they were.

    Raises InputError for inputs or modules that have no kernel (batch normalisation in training mode, active dropout,
    outputs that are not finite, ...), naming the module and the way out.
    Source: Jacot, Gabriel, Hongler 2018 (arXiv 1806.07572); the layer Gram as in docs/kernels.md.
    """
    for key, value, kind in (("outputs", outputs, Outputs), ("method", method, Method)):
        if value not in get_args(kind):
            raise InputError(f"{key} is {value!r}; choose one of {', '.join(map(repr, get_args(kind)))}.")
    if per_parameter and out is not None:
        raise InputError(
            "per_parameter returns several kernels, which one `out` cannot take; leave one of the two out."
        )
    network = Network(module, params=params, dtype=dtype)
    with undisturbed(network):
        # Ranks on one machine share its memory; each GPU is its rank's own.
        ranks = world(process_group) if network.device.type == "cpu" and memory_budget is None else 1
        budget = budget_bytes(memory_budget, network.device) // ranks
        rest = frozenset(network.params) if method == "jacobian" else frozenset[str]()
        run = Run(network, outputs, rest, method == "layerwise", per_parameter, budget, progress)
        if process_group is None:
            kernels = run.kernels(x1, x2, out)
        else:
            kernels = shared(run, x1, x2, process_group, gather=gather, out=out)
    return kernels if per_parameter else next(iter(kernels.values()))
