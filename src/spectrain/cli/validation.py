"""The table of rules (`rules`), applied to a configuration before anything is built or written.

Hydra reads ``optimizer.lr=1e-2`` as the number 0.01, on the command line and in its YAML files; only quotes
(``optimizer.lr='"1e-2"'``) make it a text. Such a text is understood where a number with a fraction is expected, and
put into the configuration as a number; every other text in place of a number is refused.
"""

import functools
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spectrain.cli.combinations import check_combinations
from spectrain.cli.rules import RULES, Rule
from spectrain.errors import InputError, SpectrainWarning

# Groups whose keys mean something else in a class of the user's own; the rules then leave them to that class.
_OWN_CLASS_GROUPS = ("model", "data", "optimizer", "schedule", "preconditioner", "spectral_map")
_KNOWN_CLASSES = ("spectrain.", "torch.optim.", "pytorch_optimizer.")
_ABSENT = object()
_SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


def validate(cfg: DictConfig, own: Mapping[str, Rule] | None = None) -> None:
    """Check every key of the table that the configuration has, and the keys that must fit each other.

    `own` are the rules of a program whose key means something else than the training program's. A number with a
    fraction that was given as a text in scientific notation is put into `cfg` as a number.

    Raises:
        InputError: naming the key, what was given and what is allowed.
    """
    if missing := next(_missing(OmegaConf.to_container(cfg)), None):
        raise InputError(f"{missing}=??? is a value that is still missing; give one: {missing}=...")
    for key, rule in (RULES | dict(own or {})).items():
        if not _is_own_class(cfg, key.split(".")[0]):
            _check(cfg, key, rule)
    if cfg.get("size") == "paper" and "${sized:" not in OmegaConf.to_yaml(cfg):
        warnings.warn(
            "size=paper has no effect: nothing here has a paper size; give the sizes themselves, e.g. data.size=128.",
            SpectrainWarning,
            stacklevel=2,
        )
    check_combinations(functools.partial(_known, cfg))


def _missing(node: Any, key: str = "") -> Iterator[str]:
    """The keys whose value is Hydra's ???, which says that there must be one; of a list, the list's."""
    if node == "???":
        yield key
    elif isinstance(node, dict):
        for name, value in node.items():
            yield from _missing(value, f"{key}.{name}".lstrip("."))
    elif isinstance(node, list):
        for value in node:
            yield from _missing(value, key)


def _check(cfg: DictConfig, key: str, rule: Rule) -> None:
    value = _select(cfg, key)
    if value is _ABSENT:
        return
    if rule.is_float and isinstance(value, str) and _SCIENTIFIC.fullmatch(value.strip()):
        value = float(value)
        OmegaConf.update(cfg, key, value)
    if not rule.accepts(value):
        raise InputError(f"{key}={_shown(value)} cannot be used; it must be {rule.allowed}{_hint(value, rule)}.")


def _select(cfg: DictConfig, key: str) -> Any:
    """The resolved value of a key, `_ABSENT` when the configuration has no such key."""
    parent, _, name = key.rpartition(".")
    try:
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if not isinstance(node, DictConfig) or name not in node:
            return _ABSENT
        return node[name]
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{key} cannot be computed from the other keys: {reason}.") from error


def _known(cfg: DictConfig, key: str) -> Any:
    """The value of a key with the meaning of the table; None when there is no such key."""
    value = _ABSENT if _is_own_class(cfg, key.split(".")[0]) else _select(cfg, key)
    return None if value is _ABSENT else value


def _is_own_class(cfg: DictConfig, group: str) -> bool:
    target = _select(cfg, f"{group}._target_") if group in _OWN_CLASS_GROUPS else None
    return isinstance(target, str) and not target.startswith(_KNOWN_CLASSES)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if OmegaConf.is_config(value):
        return str(OmegaConf.to_container(value))
    return f"'{value}'" if isinstance(value, str) else str(value)


def _hint(value: Any, rule: Rule) -> str:
    """What to type instead, where that can be told."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer() and rule.accepts(int(value)):
        return f": write {int(value)} instead of {value}"
    if isinstance(value, str) and rule.is_float:
        return ": Hydra reads 0.01 and 1e-2 as numbers, a quoted or misspelt one as a text"
    return ""
