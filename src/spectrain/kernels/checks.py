"""What has no kernel, refused with the module's name and the way out.

Legend: n points, C outputs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.kernels.network import Inputs, Network, rows_of, take_rows

_WAY_OUT = "Call module.eval() first if that is what you mean."


def check_mode(network: Network) -> None:
    """Refuse layers that, in the mode they are in, are random or mix the points."""
    for name, module in network.module.named_modules():
        label = f"{type(module).__name__} '{name}'" if name else type(module).__name__
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(f"{label} is compiled to TorchScript, which hides its layers. Give the original module.")
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
            raise InputError(f"{label} normalises over the batch, so single points have no kernel. {_WAY_OUT}")
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0:
            raise InputError(f"{label} is active, so the network is random. {_WAY_OUT}")
        if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)) and module.training and module.dropout > 0:
            raise InputError(f"{label} has active dropout, so the network is random. {_WAY_OUT}")


def check_outputs(network: Network, x: Inputs, f: Float[Tensor, "n C"], drew: bool) -> None:
    """Refuse outputs f at a few points x that are random, not finite, or dependent on the batch's other points."""
    if drew:
        raise InputError(f"{_first(network, draws(network), x)} draws random numbers in its forward. {_WAY_OUT}")
    if not bool(torch.isfinite(f).all()):
        raise not_finite(network, x)
    if rows_of(x) < 2:
        return
    alone = _outputs(network, take_rows(x, slice(0, 1)))
    if alone.shape[1] != f.shape[1] or _differ(alone[0], f[0], f):
        name = _first(network, _mixes(network, x), x)
        raise InputError(
            f"{name} makes the output at a point depend on the other points of the batch, so points have no kernel. "
            f"Use a layer that treats points one by one (LayerNorm or GroupNorm in place of BatchNorm). {_WAY_OUT}"
        )


def not_finite(network: Network, x: Inputs) -> InputError:
    """The error for outputs that are NaN or infinite; names the first module that returns them."""

    def bad(module: nn.Module, inputs: Any, output: Any) -> bool:
        return isinstance(output, Tensor) and output.is_floating_point() and not bool(torch.isfinite(output).all())

    name = _first(network, bad, x)
    return InputError(f"{name} returns numbers that are not finite; look for NaN or overflow in inputs and weights.")


def _outputs(network: Network, x: Inputs) -> Tensor:
    with torch.no_grad():
        return network(network.params, x)


def _differ(one: Tensor, other: Tensor, scale: Tensor) -> bool:
    tolerance = 1e3 * torch.finfo(scale.dtype).eps ** 0.75 * float(scale.abs().max())
    return bool((one - other).abs().max() > tolerance) if one.numel() else False


def draws(network: Network) -> Callable[[nn.Module, Any, Any], bool]:
    """Whether random numbers were drawn since now."""
    on_cuda = network.device.type == "cuda"
    get = torch.cuda.get_rng_state if on_cuda else torch.get_rng_state
    before = torch.get_rng_state(), get()

    def drew(module: nn.Module, inputs: Any, output: Any) -> bool:
        return not (torch.equal(torch.get_rng_state(), before[0]) and torch.equal(get(), before[1]))

    return drew


def _mixes(network: Network, x: Inputs) -> Callable[[nn.Module, Any, Any], bool]:
    """Compares every module's output at the first point with what it is for that point alone, in order of calls."""
    alone: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> bool:
        alone.append(output.detach().clone() if isinstance(output, Tensor) else torch.empty(0))
        return False

    _first(network, keep, take_rows(x, slice(0, 1)))
    calls = iter(alone)

    def mixed(module: nn.Module, inputs: Any, output: Any) -> bool:
        one = next(calls, None)
        if one is None or not isinstance(output, Tensor) or output.ndim == 0 or one.shape[1:] != output.shape[1:]:
            return False
        return one.shape[0] == 1 and output.is_floating_point() and _differ(one[0], output[0], output)

    return mixed


def _first(network: Network, test: Callable[[nn.Module, Any, Any], bool], x: Inputs) -> str:
    """The first module, in order of finished calls, that passes a test; the network itself if none does."""
    names = {id(module): name for name, module in network.module.named_modules()}
    found: list[nn.Module] = []

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if not found and test(module, inputs, output):
            found.append(module)

    with _hooked(network.module, look):
        _outputs(network, x)
    module = found[0] if found else network.module
    name = names[id(module)]
    return f"{type(module).__name__} '{name}'" if name else type(module).__name__


@contextmanager
def _hooked(module: nn.Module, hook: Callable[[nn.Module, Any, Any], None]) -> Iterator[None]:
    handles = [child.register_forward_hook(hook) for child in module.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
