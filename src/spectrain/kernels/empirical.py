"""The empirical neural tangent kernel of any network.

Legend: n, m points; C outputs; P parameters; J [nC, P] the Jacobian of the outputs with respect to the parameters.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.kernels import rules as _rules  # noqa: F401  (registers the rules of torch's own layers)
from spectrain.kernels.blocks import Side, Split, compute, pass_work, split
from spectrain.kernels.capture import UnknownUseError
from spectrain.kernels.gram import Pair
from spectrain.kernels.memory import budget_bytes
from spectrain.kernels.network import Inputs, Network, rows_of, undisturbed
from spectrain.kernels.planning import Look, look, widened
from spectrain.kernels.progress import Progress
from spectrain.kernels.sinks import Sink
from spectrain.kernels.uses import Names

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
    device, or `torch.from_numpy` of a `numpy.memmap`. Work over two seconds shows its progress on stderr unless
    `progress=False`. The module's mode, hooks, gradients, buffers and random numbers stay as they were.

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
        budget = budget_bytes(memory_budget, network.device)
        rest = frozenset(network.params) if method == "jacobian" else frozenset[str]()
        probe = x1 if x2 is None or rows_of(x1) >= rows_of(x2) else x2
        while True:
            try:
                seen = look(network, probe, outputs, rest, strict=method == "layerwise", apart=per_parameter)
                kernels = _compute(network, x1, x2, seen, budget, out, progress)
                break
            except UnknownUseError as found:
                rest = widened(rest, found, method == "layerwise")
    return kernels if per_parameter else next(iter(kernels.values()))


def _compute(
    network: Network, x1: Inputs, x2: Inputs | None, seen: Look, budget: int, out: Tensor | None, show: bool
) -> dict[str, Tensor]:
    """The kernel, or every parameter's, by name."""
    n, m = rows_of(x1), rows_of(x1 if x2 is None else x2)
    full = seen.plan.outputs == "full"
    E = seen.C if full else 1
    shape = (n, m, E, E) if full else (n, m)
    like = torch.empty(0, dtype=network.dtype, device=network.device)
    keys = tuple(network.params) if seen.plan.apart else ("",)
    sinks = {key: Sink(_result(out, shape, like), E, like) for key in keys}
    in_place = next(iter(sinks.values())).in_place()
    sizes = split(seen, n, m, x2 is None, budget, 0 if in_place else E * E * like.element_size())
    bar = Progress("kernel", _work(seen, n, m, x2 is None, sizes, E), show=show)
    left = Side(network, x1, seen, sizes.pass_bytes, bar)
    right = None if x2 is None else Side(network, x2, seen, sizes.pass_bytes, bar)

    def sink(names: Names) -> Sink:
        return sinks[names[0] if seen.plan.apart else ""]

    try:
        compute(left, right, sizes, sink, bar)
    finally:
        bar.close()
    return {key: sink.out for key, sink in sinks.items()}


def _result(out: Tensor | None, shape: tuple[int, ...], like: Tensor) -> Tensor:
    if out is None:
        return like.new_zeros(shape)
    if out.shape != shape:
        raise InputError(f"out has shape {tuple(out.shape)}; this kernel needs {shape}.")
    return out.zero_()


def _work(seen: Look, n: int, m: int, symmetric: bool, sizes: Split, E: int) -> float:
    """Flops, roughly, of all passes and products, for the progress line."""
    blocks = -(-n // sizes.rows)
    passes = (
        pass_work(seen, n) + pass_work(seen, m) * (blocks - 1) / 2 if symmetric else pass_work(seen, n + m * blocks)
    )
    few = next(iter(seen.sample.values())).n
    scale = n * m * (0.5 if symmetric else 1.0) / few**2
    return passes + scale * sum(min(Pair(f, f, False, 0).flops(E)) for f in seen.sample.values())
