"""The command line, checked before Hydra's own main runs: every mistake becomes one sentence with the nearest name."""

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException, UnsupportedInterpolationType

from spectrain.cli.allowlist import check_hydra
from spectrain.cli.config_dir import config_dir
from spectrain.cli.nearest import nearest
from spectrain.errors import InputError

# Values tried one by one in a sweep; a longer sweep is checked up to here.
MAX_SWEEP_VALUES = 100
# Words that people type, and what Hydra understands in their place; it has no null for a group.
_ABBREVIATIONS = {"debug=true": "debug=traceback"}
_WITHOUT_EFFECT = {"debug=false", "debug=null", "experiment=null"}
_FLAGS_WITH_VALUE = {
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--config-dir",
    "-cd",
}


def normalize(argv: Sequence[str]) -> list[str]:
    """Overrides first, then flags: Hydra's parser refuses ``a=1 -m b=2``. And ``debug=true`` is ``debug=traceback``."""
    overrides: list[str] = []
    flags: list[str] = []
    for position, word in enumerate(argv):
        is_value = position > 0 and argv[position - 1] in _FLAGS_WITH_VALUE
        is_override = "=" in word and not word.startswith("-") and not is_value
        if not is_override:
            flags.append(word)
        elif word.lower() not in _WITHOUT_EFFECT:
            overrides.append(_ABBREVIATIONS.get(word.lower(), word))
    return overrides + flags


def check_overrides(argv: Sequence[str], folder: Path, config_name: str) -> None:
    """Compose the configuration as Hydra's main will, for every value of a sweep once, and throw it away.

    `argv` are the words after the program's name, Hydra's flags among them.

    Raises:
        InputError: a flag, key, group, choice, value or configuration file cannot be used; with the nearest name.
    """
    args = _parse_flags(argv)
    if args.hydra_help or args.shell_completion or args.experimental_rerun:
        return
    if args.config_path is not None:
        folder = Path(args.config_path)
        if not folder.is_absolute():
            return  # relative to the file of the program's main function, which Hydra alone knows
        if not folder.is_dir():
            raise InputError(f"--config-path={folder} is not a folder.")
    name = args.config_name or config_name
    overrides = _parse(args.overrides)
    multirun = args.multirun or any(o.key_or_group == "hydra.mode" and "MULTIRUN" in str(o.value()) for o in overrides)
    for override in overrides:
        _check_sweep(override, multirun)
    with _Composer(folder, name, args.config_dir) as composer:
        for words in _jobs(overrides, composer):
            composer.check(words)


def composed(words: Sequence[str], name: str = "train") -> DictConfig:
    """A program's configuration for these overrides, the training program's by default, checked as its command line is.

    Raises:
        InputError: naming the override that is to blame.
    """
    for override in _parse(words):
        _check_sweep(override, multirun=False)
    with _Composer(config_dir(), name, _config_dir_of_the_job()) as composer:
        composer.check(words)
        return composer.compose(words)


def _config_dir_of_the_job() -> str | None:
    """The --config-dir with which the job was started that composes another configuration."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else ()
    return next((str(source.path) for source in sources if source.provider == "command-line"), None)


class _Parser(argparse.ArgumentParser):
    """Hydra's flags, with an InputError in place of a usage text."""

    def error(self, message: str) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
        unknown = message.rpartition(": ")[2].split()[0].split("=")[0]
        near = nearest(unknown, flags) if "unrecognized" in message else None
        raise InputError(f"{message}.{f' Did you mean {near}?' if near else ''} See --help for what can be given.")


def _parse_flags(argv: Sequence[str]) -> argparse.Namespace:
    parser = get_args_parser()
    parser.__class__ = _Parser
    args: argparse.Namespace = parser.parse_args(list(argv))
    return args


def _parse(words: Sequence[str]) -> list[Override]:
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
                f"special characters in quotes: {_quoted(word)}"
            ) from error
    return found


def _quoted(word: str) -> str:
    key, _, value = word.partition("=")
    return f"\"{key}='{value.strip(chr(39) + chr(34))}'\"."


def _check_sweep(override: Override, multirun: bool) -> None:
    if not override.is_sweep_override():
        return
    word = override.input_line or ""
    if override.is_hydra_override():
        raise InputError(f"{word}: Hydra's own settings cannot be swept; give one value.")
    if not multirun:
        raise InputError(
            f"{word} gives several values; add -m to run one job for each, write [a,b] for a list, "
            f"or quote a text that has a comma in it: {_quoted(word)}"
        )


def _jobs(overrides: list[Override], composer: "_Composer") -> Iterator[list[str]]:
    """The override lists to try: the first value of every sweep, then each other value with the first of the rest."""
    values = [_values(override, composer) for override in overrides]
    first = [options[0] for options in values]
    yield first
    for position, options in enumerate(values):
        for option in options[1:]:
            yield [*first[:position], option, *first[position + 1 :]]


def _values(override: Override, composer: "_Composer") -> list[str]:
    """An override without a sweep in it, or one per value; of a range or interval, one value stands for all."""
    word = override.input_line or ""
    if not override.is_sweep_override():
        return [word]
    if override.is_interval_sweep():
        options = [str(override.value().start)]  # type: ignore[union-attr]
    else:
        override.config_loader = composer.loader
        limit = 1 if override.is_range_sweep() else MAX_SWEEP_VALUES
        options = [text for _, text in zip(range(limit), override.sweep_string_iterator(), strict=False)]
    if not options:
        raise InputError(f"{word} gives no value to run.")
    return [f"{override.get_key_element()}={option}" for option in options]


class _Composer:
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

    def __enter__(self) -> "_Composer":
        return self

    def __exit__(self, *_: object) -> None:
        GlobalHydra.instance().clear()

    def compose(self, words: Sequence[str]) -> DictConfig:
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
        overrides = _parse(words)
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
