"""A module seen as a function of its parameters, without touching the module.

Legend: n points, C outputs.
The module is called with stand-ins for its parameters and buffers, so that gradients, buffers and flags of the module
itself cannot change, and a float16 network is computed in float32.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils import checkpoint as checkpointing
from torch.utils._pytree import tree_leaves, tree_map_only

from spectrain.errors import InputError

Inputs = Any  # a tensor [n, ...], or a tuple or dict of them

_WRAPPERS = ("DistributedDataParallel", "DataParallel")


def unwrap(module: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel, DataParallel or torch.compile."""
    while True:
        if type(module).__name__ in _WRAPPERS:
            module = module.module  # type: ignore[assignment]
        elif hasattr(module, "_orig_mod"):
            module = module._orig_mod  # type: ignore[assignment]
        else:
            return module


def rows_of(x: Inputs) -> int:
    """The number of points n: the length of every tensor in x that has a first axis."""
    lengths = {leaf.shape[0] for leaf in tree_leaves(x) if isinstance(leaf, Tensor) and leaf.ndim > 0}
    if len(lengths) != 1:
        raise InputError(
            "The network's inputs must be tensors that share their first axis (the points); "
            f"found first axes {sorted(lengths)}."
        )
    n = lengths.pop()
    if n == 0:
        raise InputError("The inputs hold no points: their first axis has length 0. Give at least one point.")
    return int(n)


def take_rows(x: Inputs, rows: slice) -> Inputs:
    """The given points of x."""
    return tree_map_only(Tensor, lambda leaf: leaf[rows] if leaf.ndim > 0 else leaf, x)


class Network:
    """f(x; params) -> [n, C] for a module, a choice of its parameters, and a dtype to compute in."""

    def __init__(
        self,
        module: nn.Module,
        *,
        params: Sequence[str] | Callable[[str], bool] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.module = unwrap(module)
        everything = dict(self.module.named_parameters())
        for name, p in everything.items():
            if hasattr(p, "full_tensor"):  # a DTensor: torch.distributed.fsdp.fully_shard
                raise InputError(
                    f"'{name}' is sharded over ranks, and a kernel needs whole parameters: refresh the sample side "
                    "with a whole copy of the network (docs/distributed.md); the parameter side goes with no shards."
                )
            if isinstance(p, nn.parameter.UninitializedParameter):
                label = f"{type(self.module.get_submodule(name.rpartition('.')[0])).__name__} with '{name}'"
                raise InputError(f"{label} is not initialised yet. Run the network once on an input before its kernel.")
        floating = [p.dtype for p in everything.values() if p.is_floating_point()]
        self.dtype = dtype or _compute_dtype(floating)
        self.device = next((p.device for p in everything.values()), torch.device("cpu"))
        chosen = _choose(everything, params)
        self.params: dict[str, Tensor] = {name: self._cast(everything[name]).requires_grad_() for name in chosen}
        self.originals: dict[str, Tensor] = {name: everything[name] for name in chosen}
        self.constants: dict[str, Tensor] = {
            name: self._cast(tensor)
            for name, tensor in (everything | dict(self.module.named_buffers())).items()
            if name not in self.params
        }
        self._aliases = _aliases(self.module)

    def _cast(self, tensor: Tensor) -> Tensor:
        # A buffer may be updated in place by the forward: a copy keeps the module's own as it was.
        copy = not isinstance(tensor, nn.Parameter)
        return tensor.detach().to(self.dtype if tensor.is_floating_point() else tensor.dtype, copy=copy)

    def freeze(self) -> None:
        """Keep the parameters as they are now, whatever happens to the module's own."""
        self.params = {name: p.detach().clone().requires_grad_() for name, p in self.params.items()}
        self.constants = {name: t.detach().clone() for name, t in self.constants.items()}

    def inputs(self, x: Inputs) -> Inputs:
        """x on the network's device and in its dtype."""

        def move(leaf: Tensor) -> Tensor:
            leaf = leaf.detach().to(self.device, self.dtype if leaf.is_floating_point() else leaf.dtype)
            return leaf.clone() if leaf.is_inference() else leaf

        return tree_map_only(Tensor, move, x)

    def __call__(self, params: Mapping[str, Tensor], x: Inputs) -> Float[Tensor, "n C"]:
        """The module's outputs, flattened to [n, C]."""
        args, kwargs = arguments(x)
        tensors = {**self.constants, **params}
        tensors |= {alias: tensors[name] for alias, name in self._aliases.items()}
        # torch's own tying leaves the stand-ins in a module that is used twice.
        output = torch.func.functional_call(self.module, tensors, args, kwargs, tie_weights=False)
        name = type(self.module).__name__
        if not isinstance(output, Tensor):
            raise InputError(
                f"{name} returned a {type(output).__name__}; the kernel needs one tensor [n], [n, C] or [n, ...]. "
                "Wrap the network in a module that returns the part you mean."
            )
        n = rows_of(x)
        if output.ndim == 0 or output.shape[0] != n:
            raise InputError(
                f"{name} returned shape {tuple(output.shape)} for {n} points; its first axis must be the points."
            )
        return output.reshape(n, -1)


def arguments(x: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a call of the module with x."""
    if isinstance(x, dict):
        return (), x
    return (tuple(x), {}) if isinstance(x, (tuple, list)) else ((x,), {})


def _aliases(module: nn.Module) -> dict[str, str]:
    """The other names of parameters and buffers that several modules hold, and the name of each in `params`.

    A module that stands in several places is one module: it has its tensors once.
    """
    names: dict[int, str] = {}
    aliases = {}
    for prefix, child in module.named_modules():
        own = child.named_parameters(recurse=False, remove_duplicate=False)
        for local, tensor in (*own, *child.named_buffers(recurse=False, remove_duplicate=False)):
            name = f"{prefix}.{local}" if prefix else local
            first = names.setdefault(id(tensor), name)
            if first != name:
                aliases[name] = first
    return aliases


def _compute_dtype(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """The widest of the network's dtypes, and never less than float32."""
    widest = torch.float32
    for dtype in dtypes:
        widest = torch.promote_types(widest, dtype)
    return widest


def _choose(everything: Mapping[str, Tensor], params: Sequence[str] | Callable[[str], bool] | None) -> list[str]:
    trainable = [name for name, p in everything.items() if p.requires_grad]
    if params is None:
        chosen = trainable
    elif callable(params):
        chosen = [name for name in trainable if params(name)]
    else:
        unknown = [name for name in params if name not in everything]
        if unknown:
            raise InputError(
                f"params names {unknown[0]!r}, which the module does not have; it has {', '.join(everything)}."
            )
        chosen = [name for name in trainable if name in set(params)]
    if not chosen:
        raise InputError(
            "No parameter is left to differentiate: all are frozen (requires_grad=False) or outside params."
        )
    return chosen


@contextmanager
def undisturbed(network: Network) -> Iterator[None]:
    """Gradients on, autocast and TF32 off, random numbers and compiled code left alone; all as before on leaving."""
    precision = torch.get_float32_matmul_precision()
    cuda = [network.device] if network.device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.random.fork_rng(devices=cuda))
        stack.enter_context(torch.autocast(network.device.type, enabled=False))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(without_checkpointing())
        stack.enter_context(_tensors_restored(network.module))
        stack.callback(torch.set_float32_matmul_precision, precision)
        torch.set_float32_matmul_precision("highest")
        yield


@contextmanager
def _tensors_restored(module: nn.Module) -> Iterator[None]:
    """Plain tensors that a forward leaves on its modules (the weight of the older weight_norm) are those of before."""

    def tensors(child: nn.Module) -> dict[str, Tensor]:
        return {name: value for name, value in vars(child).items() if isinstance(value, Tensor)}

    before = [(child, tensors(child)) for child in module.modules()]
    try:
        yield
    finally:
        for child, kept in before:
            for name in tensors(child).keys() - kept.keys():
                del vars(child)[name]
            vars(child).update(kept)


class _Plain:
    """In place of a checkpointed segment: the segment itself."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        return function(*args)


def _once(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


@contextmanager
def without_checkpointing() -> Iterator[None]:
    """Checkpointed segments run as they are: run again during backward, they would meet the module's own parameters."""
    places = {"CheckpointFunction": _Plain, "_checkpoint_without_reentrant_generator": _once}
    before = {name: getattr(checkpointing, name) for name in places if hasattr(checkpointing, name)}
    try:
        for name in before:
            setattr(checkpointing, name, places[name])
        yield
    finally:
        for name, value in before.items():
            setattr(checkpointing, name, value)
