"""S in other people's loops: a hook on a module's output, and what tells early that it does not fit there."""

import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from spectrain.errors import InputError, SpectrainWarning
from spectrain.kernels.network import unwrap

if TYPE_CHECKING:
    from spectrain.preconditioners.sample_side import SamplePreconditioner

_NOT_USED = (
    "A backward pass went by, and no gradient came to what S returned: the loss does not use it, and S has no effect. "
    "Write loss = criterion(S(output), y)."
)
_EVALUATION = (
    "S is attached to a module that is trained in evaluation mode, and leaves its output alone there; call train() "
    "on it, or wrap the output yourself: S(output)."
)
_TWO = (
    "A step's gradient came through a SamplePreconditioner, and a ParameterPreconditioner multiplies it once more: "
    "two at once. Keep one of them."
)
_NOT_CALLED = (
    "S is attached to a module whose output was not asked for while S was there, or whose code was compiled before: S "
    "has no effect. Attach it to what the training loop calls, such as the result of torch.compile."
)


# A parameter of each network whose output some S is on: its version when a gradient last came through S.
_came_through = WeakTensorKeyDictionary()


def warn_of_two(parameters: Iterable[Tensor]) -> None:
    """Warn if a gradient at the present values of these parameters came through an S on the sample side."""
    if any(_came_through.get(p) == p._version for p in parameters if p in _came_through):
        warnings.warn(_TWO, SpectrainWarning, stacklevel=4)


class OutputHook:
    """A forward hook ``output -> S(output, S.index)``, active while the module is in training mode."""

    def __init__(self, S: "SamplePreconditioner") -> None:
        self.S = S
        self.calls = 0

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Tensor | None:
        """S of the output, or None for "as it is"."""
        # The kernel engine calls a network with stand-ins for its parameters, which are plain tensors.
        if any(not isinstance(p, nn.Parameter) for p in module.parameters()):
            return None
        self.calls += 1
        if not isinstance(output, Tensor):
            raise InputError(
                f"{type(module).__name__} returns a {type(output).__name__}; S needs one tensor. Attach S to the "
                "module inside it that makes the output, such as its last layer."
            )
        if not output.requires_grad:
            return None
        if not module.training:
            output.register_hook(lambda c: self.S.watch.warn_once(_EVALUATION))
            return None
        index, self.S.index = self.S.index, None  # used once: a batch must not meet the index of the one before
        return self.S(output, index)

    def __deepcopy__(self, memo: Any) -> "OutputHook":
        return self  # a copy of the network (an average of its weights) needs no copy of the modes


def refuse_a_second(module: nn.Module, S: "SamplePreconditioner") -> None:
    """Raise InputError if some preconditioner is attached to a module or to a part of it."""
    for name, part in module.named_modules():
        for hook in part._forward_hooks.values():
            if isinstance(hook, OutputHook):
                whose = "this S" if hook.S is S else "another preconditioner"
                raise InputError(
                    f"{whose} is attached to {name or type(module).__name__} already; remove that one first "
                    "(handle.remove()): two would multiply."
                )


def fingerprint(network: nn.Module) -> list[str]:
    """Name and shape of every parameter, without the prefixes of torch.compile and data-parallel wrappers."""
    return [f"{name.replace('_orig_mod.', '')} {list(p.shape)}" for name, p in unwrap(network).named_parameters()]


def is_part(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether one network's parameters are among the other's, whatever prefix a wrapper gives them."""
    return set(one) <= _suffixes(other) or set(other) <= _suffixes(one)


def _suffixes(names: Sequence[str]) -> set[str]:
    found = set()
    for name in names:
        path, _, shape = name.partition(" ")
        parts = path.split(".")
        found |= {f"{'.'.join(parts[i:])} {shape}" for i in range(len(parts))}
    return found


def check_same_network(network: nn.Module, expected: Sequence[str]) -> None:
    """Raise InputError if the network is neither the one of that fingerprint nor a part or a wrapper of it."""
    found = fingerprint(network)
    if is_part(found, expected):
        return
    ours, theirs = ([name for name in a if name not in b] for a, b in ((expected, found), (found, expected)))
    raise InputError(
        f"This S holds the spectrum of another network: {_first(ours)} there, {_first(theirs)} in this "
        f"{type(unwrap(network)).__name__}. Refresh it with this network, S.refresh(model, x), or load its own state."
    )


def _first(names: Sequence[str]) -> str:
    return names[0] if names else "fewer parameters"


class Watch:
    """Sees whether the loss uses what S returned, and says so once if not.

    That the network was trained in the meantime is told by the version of one of its parameters, which counts changes.
    """

    def __init__(self) -> None:
        self._warned: set[str] = set()
        self._checked: weakref.ref[nn.Module] | None = None
        self._parameter: weakref.ref[nn.Parameter] | None = None
        self._arrived, self._arrived_version = [True], -1  # whether a gradient came since that version
        self._hook: tuple[weakref.ref[nn.Module], OutputHook] | None = None
        self._calls, self._calls_version = 0, 0  # the hook's calls at that version

    def __reduce__(self) -> Any:
        return Watch, ()  # a copy of S watches anew

    def check_network(self, network: nn.Module, expected: Sequence[str]) -> None:
        """`check_same_network`, once for the same network."""
        if self._checked is None or self._checked() is not network:
            check_same_network(network, expected)
            self._checked = weakref.ref(network)

    def forget_network(self) -> None:
        """The spectrum is another one from now on."""
        self._checked = None

    def hooked(self, module: nn.Module, hook: OutputHook) -> None:
        """A hook that should be called between two refreshes."""
        self._hook, self._calls, self._calls_version = (weakref.ref(module), hook), 0, self._version()

    def refreshed(self, network: nn.Module) -> None:
        """The network to watch from now on; warns if it was trained and an attached S was never called."""
        if self._hook is not None:
            module, hook = self._hook[0](), self._hook[1]
            there = module is not None and hook in module._forward_hooks.values()
            if there and hook.calls == self._calls and self._version() != self._calls_version:
                self.warn_once(_NOT_CALLED)
            self._calls = hook.calls
        trained = next((p for p in network.parameters() if p.requires_grad), None)
        self._parameter = None if trained is None else weakref.ref(trained)
        self._calls_version = self._version()
        self._arrived, self._arrived_version = [True], -1

    def left(self) -> None:
        """Warn if the hook was never called in the ``with`` block that ends."""
        if self._hook is not None and self._hook[1].calls == 0:
            self.warn_once(_NOT_CALLED)

    def refuse_wrapped(self, output: Tensor) -> None:
        """Raise InputError if `output` is what some S returned."""
        if getattr(output, "_spectrain_wrapped", False):
            raise InputError(
                "This output is wrapped by a preconditioner already (by an attached one, or by run()); two would "
                "multiply. Keep one of them."
            )

    def discarded(self) -> None:
        """What was wrapped last was not meant to be trained with."""
        self._arrived[0] = True

    def over(self, output: Tensor, wrapped: Tensor, precondition: Callable[[Tensor], Tensor]) -> None:
        """Register `precondition` on the gradient of `wrapped`, and look whether it comes."""
        if self._version() != self._arrived_version:
            if not self._arrived[0]:
                self.warn_once(_NOT_USED)
            self._arrived, self._arrived_version = [False], self._version()
        came, arrived = [False], self._arrived

        def arrive(c: Tensor) -> Tensor:
            came[0] = arrived[0] = True
            parameter = None if self._parameter is None else self._parameter()
            if parameter is not None:
                _came_through[parameter] = parameter._version
            # Of a loss c depends on the output: second-order optimizers (Sophia) go through here.
            if torch.is_grad_enabled() and not c.requires_grad:
                raise InputError(
                    "A derivative of the preconditioned output was taken with create_graph=True, as for a differential "
                    "equation's residual: S would enter the loss itself. Take derivatives of the network's own output, "
                    "and wrap what the loss is made of: S(residual)."
                )
            return precondition(c)

        def pass_by(c: Tensor) -> None:
            if not came[0]:
                self.warn_once(_NOT_USED)

        wrapped._spectrain_wrapped = True  # type: ignore[attr-defined]
        wrapped.register_hook(arrive)
        # In one backward pass the gradient of `wrapped` is complete before that of `output`.
        output.register_hook(pass_by)

    def _version(self) -> int:
        parameter = None if self._parameter is None else self._parameter()
        return 0 if parameter is None else parameter._version

    def warn_once(self, message: str) -> None:
        """A SpectrainWarning, the first time."""
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, SpectrainWarning, stacklevel=4)
