"""Hydra's configuration for a list of overrides, and which of them is to blame where there is none."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException, UnsupportedInterpolationType

from spectrain.cli.allowlist import check_hydra
from spectrain.cli.nearest import nearest
from spectrain.errors import InputError


def parse(words: Sequence[str]) -> list[Override]:
    """Overrides as Hydra reads them.

    Raises:
        InputError: a word is none.
    """
    parser = OverridesParser.create()
    found = []
    for word in words:
        if "=" not in word and not word.startswith("~"):
            raise InputError(f"'{word}' has no value; overrides are written key=value, without spaces around the '='.")
        try:
            found.append(parser.parse_override(word))
            if not found[-1].key_or_group:
                raise HydraException("there is no key before the '='")
        except (OverrideParseException, HydraException) as error:
            raise InputError(
                f"'{word}' cannot be read as an override ({_first_line(error)}); write key=value, and put a value with "
                f"special characters in quotes: {quoted(word)}"
            ) from error
    return found


def quoted(word: str) -> str:
    """The override as a shell takes it whole."""
    key, _, value = word.partition("=")
    return f"\"{key}='{value.strip(chr(39) + chr(34))}'\"."


class Composer:
    """Hydra, started for a configuration folder, without its main."""

    def __init__(self, config_dir: Path, config_name: str, extra_dir: str | None) -> None:
        self.config_name = config_name
        search_path = create_config_search_path(str(config_dir))
        if extra_dir is not None:
            if not Path(extra_dir).is_dir():
                raise InputError(f"--config-dir={extra_dir} is not a folder; give one with your own config groups.")
            # The same place in the search path as in Hydra's main: what it holds can add to conf/, not replace it.
            anchor = SearchPathQuery(provider="schema")
            search_path.prepend(provider="command-line", path=f"file://{os.path.abspath(extra_dir)}", anchor=anchor)
        GlobalHydra.instance().clear()
        self.hydra = Hydra.create_main_hydra2(task_name="spectrain", config_search_path=search_path)
        self.loader = self.hydra.config_loader

    def __enter__(self) -> "Composer":
        return self

    def __exit__(self, *_: object) -> None:
        GlobalHydra.instance().clear()

    def compose(self, words: Sequence[str]) -> DictConfig:
        """The configuration of these overrides, without Hydra's own part.

        Raises:
            HydraException: and what else Hydra raises, where there is none.
        """
        cfg: DictConfig = self.hydra.compose_config(
            self.config_name, list(words), run_mode=RunMode.RUN, with_log_configuration=False, from_shell=False
        )
        check_hydra(cfg.hydra)
        OmegaConf.set_struct(cfg, False)
        cfg.pop("hydra", None)
        OmegaConf.set_struct(cfg, True)
        return cfg

    def check(self, words: Sequence[str]) -> None:
        """Compose and resolve, or raise an InputError that says which override is to blame."""
        try:
            cfg = self.compose(words)
        except InputError:
            raise
        except MissingConfigException as error:
            raise self.unknown_choice(error) from error
        except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
            raise self.blame(words, error) from error
        try:
            OmegaConf.to_container(cfg, resolve=True)
        except UnsupportedInterpolationType:
            return  # a resolver that the program registers later
        except OmegaConfBaseException as error:
            # ${hydra:...} has a value only inside a job.
            if isinstance(error, InterpolationResolutionError) and "HydraConfig was not set" in str(error):
                return
            raise InputError(f"{error.full_key} cannot be computed: {_first_line(error)}.") from error

    def unknown_choice(self, error: MissingConfigException) -> InputError:
        """optimizer=sopa: the choices, and the nearest."""
        group, _, choice = (error.missing_cfg_file or "").removesuffix(".yaml").rpartition("/")
        if not group or not error.options:
            return InputError(_first_line(error))
        near = nearest(choice, list(error.options))
        return InputError(
            f"{group}={choice} is not one of the choices of {group}: {', '.join(error.options)}."
            + (f" Did you mean {group}={near}?" if near else "")
        )

    def blame(self, words: Sequence[str], error: Exception) -> InputError:
        """The first override whose key does not exist, or Hydra's own sentence."""
        if isinstance(error, UnicodeDecodeError):
            return InputError(f"A configuration file of {' '.join(words)} is not a text in UTF-8; write it as YAML.")
        overrides = parse(words)
        for override in overrides:
            if not override.is_delete() and override.value() is None and self.is_group(override):
                key = override.key_or_group
                return InputError(f"{key}=null: a group needs one of its choices; write ~{key} to leave it out.")
        groups = [o for o in overrides if o.package or self.is_group(o)]
        try:
            keys = list(_keys(self.compose([o.input_line or "" for o in groups])))
        except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError):
            return InputError(_all_lines(error))
        for override in overrides:
            key = override.key_or_group
            if override in groups or override.is_add() or override.is_force_add() or override.is_hydra_override():
                continue
            if key not in keys:
                return InputError(self.unknown_key(override, keys))
        return InputError(_all_lines(error))

    def is_group(self, override: Override) -> bool:
        """Whether its key names a folder of choices."""
        return bool(self.loader.get_group_options(override.key_or_group))

    def unknown_key(self, override: Override, keys: list[str]) -> str:
        """model.wdith=3: did you mean model.width? Or the names beside it."""
        key = override.key_or_group
        message = f"the key {key} does not exist."
        near = nearest(key, [k for k in keys if not key.startswith(f"{k}.")])
        if near:
            return f"{message} Did you mean {near}?"
        parent = key.rpartition(".")[0]
        beside = [k.rpartition(".")[2] for k in keys if k.rpartition(".")[0] == parent]
        where = f"Keys of {parent}" if parent else "Keys"
        return f"{message} {where}: {', '.join(beside)}." if beside else f"{message} See --help for all keys."


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    """All dotted keys of a configuration, interpolations unresolved."""
    if OmegaConf.is_config(node) and not node._is_none() and not node._is_interpolation():
        children = node._content
        items = children.items() if isinstance(node, DictConfig) else enumerate(children)
        for name, child in items if isinstance(node, (DictConfig, ListConfig)) else ():
            yield f"{prefix}{name}"
            yield from _keys(child, f"{prefix}{name}.")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _all_lines(error: Exception) -> str:
    """Hydra's message as one line; its notes on object types help nobody here."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("full_key:", "object_type=")))
