"""Which objects a ``_target_`` in a configuration may name.

A configuration can come from a stranger (a checkpoint, an experiment file), and `hydra.utils.instantiate` calls
whatever it names. So a target must be reached by a public path from an allowed package, through allowed modules only,
and must be a class (or, where listed, a function) that was defined in an allowed package:
``torch.optim.optimizer.functools.partial`` begins well and is still refused.
"""

import difflib
import importlib
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spectrain.errors import InputError

ALLOWED = ("spectrain", "torch.nn", "torch.optim", "pytorch_optimizer", "pytorch_lightning", "torchmetrics")
# Plain functions are refused elsewhere: pytorch_lightning alone has several that import or unpickle what they are told.
FUNCTIONS_FROM = ("spectrain", "torch.nn.functional", "torch.nn.init")
# pytorch_lightning re-exports classes of lightning_fabric; the C functions of torch.nn.functional live in torch._C.
DEFINED_IN = (*ALLOWED, "lightning_fabric.plugins", "torch._C._nn")
HYDRA_PARTS = ("hydra._internal.core_plugins.", "hydra_plugins.")
LOGGING_PARTS = ("logging.", "colorlog.")
_ROOTS = {prefix.split(".")[0] for prefix in DEFINED_IN}
# Classes in here build other classes by name, or start programs.
DENIED = ("pytorch_lightning.cli", "pytorch_lightning.strategies.launchers", "spectrain.cli")


def check_targets(cfg: DictConfig, allow_targets: Iterable[str] = ()) -> None:
    """Refuse a configuration in which a ``_target_``, at any depth, names something that is not allowed.

    Interpolations are resolved first. `allow_targets` are the user's own prefixes (``mylab.networks`` allows that
    module, what lies below it and nothing else), to be taken from the command line, never from a checkpoint.

    Raises:
        InputError: naming the key of the target and what would be allowed.
    """
    own = tuple(_own_prefix(entry) for entry in allow_targets)
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(f"the configuration cannot be resolved: {str(error).splitlines()[0]}.") from error
    for key, target in targets(plain):
        check_target(target, own, key)


def check_hydra(section: DictConfig) -> None:
    """Refuse Hydra's own settings where they name anything but Hydra's parts and logging's handlers.

    Hydra makes these objects before a program sees its configuration, and any file with ``@package _global_`` can hold
    them. `section` is taken as it stands: an interpolation is no name.

    Raises:
        InputError: naming the key.
    """
    plain = OmegaConf.to_container(section, resolve=False)
    for names, allowed in ((("_target_",), HYDRA_PARTS), (("class", "()"), LOGGING_PARTS)):
        for key, name in targets(plain, "hydra", names):
            if name is not None and not (isinstance(name, str) and name.startswith(allowed)):
                raise InputError(f"{key}={name} is refused: it must begin with {' or '.join(allowed)}.")


def targets(node: Any, key: str = "", names: tuple[str, ...] = ("_target_",)) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every ``_target_`` in nested dictionaries and lists, those in ``_args_`` included."""
    if isinstance(node, dict):
        for name, child in node.items():
            path = f"{key}.{name}".lstrip(".")
            if name in names:
                yield path, child
            yield from targets(child, path, names)
    elif isinstance(node, (list, tuple)):
        for number, child in enumerate(node):
            yield from targets(child, f"{key}[{number}]", names)


def check_target(target: Any, own: tuple[str, ...] = (), key: str = "_target_") -> None:
    """Refuse one target; null (a group switched off) passes."""
    if target is None:
        return
    if not isinstance(target, str):
        raise InputError(f"{key} must be the dotted name of a class, as a text.")
    parts = target.split(".")
    public = all(part.isidentifier() and not part.startswith("_") for part in parts)
    if not public or not _within(target, ALLOWED + own):
        raise _refused(key, target)
    found = _resolve(target, parts, own, key)
    if target in own and callable(found):
        return
    if not _is_allowed(found, own):
        raise _refused(key, target)


def _own_prefix(entry: Any) -> str:
    parts = entry.split(".") if isinstance(entry, str) else [""]
    if not all(part.isidentifier() for part in parts):
        raise InputError(
            f"allow_targets has the entry {entry!r}; it must be a package or module, such as mylab.networks."
        )
    return ".".join(parts)


def _within(name: str | None, prefixes: Iterable[str]) -> bool:
    """Whether a dotted name is one of the prefixes or lies below one; torch.nnx does not lie below torch.nn."""
    return name is not None and any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _resolve(target: str, parts: list[str], own: tuple[str, ...], key: str) -> Any:
    """The object, found without importing, or passing through, a module that is not allowed."""
    found: Any = None
    for count, part in enumerate(parts, start=1):
        path, parent = ".".join(parts[:count]), ".".join(parts[: count - 1])
        if found is not None and hasattr(found, part):
            found = getattr(found, part)
        elif found is None or isinstance(found, types.ModuleType):
            found = _import(path, key, target, f"; it has no {part}{_near(part, found)}" if found else "")
        else:
            raise InputError(f"{key}={target} does not exist: {parent} has no {part}{_near(part, found)}.")
        if isinstance(found, types.ModuleType) and not _on_the_way(found.__name__, ALLOWED + own):
            raise _refused(key, target)
    return found


def _on_the_way(module: str, prefixes: tuple[str, ...]) -> bool:
    """A module inside an allowed one, or a package that leads to one (torch, on the way to torch.nn)."""
    return _within(module, prefixes) or any(prefix.startswith(module + ".") for prefix in prefixes)


def _import(path: str, key: str, target: str, otherwise: str) -> types.ModuleType:
    try:
        return importlib.import_module(path)
    except ImportError as error:
        # The module is there, and what it imports is not.
        inner = isinstance(error, ModuleNotFoundError) and not path.startswith(str(error.name))
        reason = f"{path} needs {error.name}, which is not installed" if inner else f"there is no {path}{otherwise}"
        raise InputError(f"{key}={target} cannot be imported: {reason}.") from error


def _is_allowed(found: Any, own: tuple[str, ...]) -> bool:
    module = getattr(found, "__module__", None)
    if not isinstance(module, str) or _within(module, DENIED) or not _within(module, DEFINED_IN + own):
        return False
    if isinstance(found, type):
        return True
    is_function = isinstance(found, (types.FunctionType, types.BuiltinFunctionType))
    return is_function and _within(module, (*FUNCTIONS_FROM, "torch._C._nn", *own))


def _near(part: str, found: Any) -> str:
    names = difflib.get_close_matches(part, [name for name in dir(found) if not name.startswith("_")], n=1)
    return f"; did you mean {names[0]}" if names else ""


def _refused(key: str, target: str) -> InputError:
    message = f"{key}={target} is refused: a target must be a public class defined in {', '.join(ALLOWED)}."
    # No advice on how to let os.system through: only what can be a person's own code.
    root, module = target.partition(".")[0], target.rpartition(".")[0]
    if module and root not in sys.stdlib_module_names and root not in _ROOTS:
        message += f" If you trust it as your own code, allow it on the command line: allow_targets=[{module}]."
    return InputError(message)
