"""The command line, checked before Hydra's own main runs: every mistake becomes one sentence with the nearest name."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from spectrain.cli.composer import Composer, parse, quoted
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
    overrides = parse(args.overrides)
    multirun = args.multirun or any(o.key_or_group == "hydra.mode" and "MULTIRUN" in str(o.value()) for o in overrides)
    for override in overrides:
        _check_sweep(override, multirun)
    with Composer(folder, name, args.config_dir) as composer:
        for words in _jobs(overrides, composer):
            composer.check(words)


def composed(words: Sequence[str], name: str = "train") -> DictConfig:
    """A program's configuration for these overrides, the training program's by default, checked as its command line is.

    Raises:
        InputError: naming the override that is to blame.
    """
    for override in parse(words):
        _check_sweep(override, multirun=False)
    with Composer(config_dir(), name, _config_dir_of_the_job()) as composer:
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


def _check_sweep(override: Override, multirun: bool) -> None:
    if not override.is_sweep_override():
        return
    word = override.input_line or ""
    if override.is_hydra_override():
        raise InputError(f"{word}: Hydra's own settings cannot be swept; give one value.")
    if not multirun:
        raise InputError(
            f"{word} gives several values; add -m to run one job for each, write [a,b] for a list, "
            f"or quote a text that has a comma in it: {quoted(word)}"
        )


def _jobs(overrides: list[Override], composer: Composer) -> Iterator[list[str]]:
    """The override lists to try: the first value of every sweep, then each other value with the first of the rest."""
    values = [_values(override, composer) for override in overrides]
    first = [options[0] for options in values]
    yield first
    for position, options in enumerate(values):
        for option in options[1:]:
            yield [*first[:position], option, *first[position + 1 :]]


def _values(override: Override, composer: Composer) -> list[str]:
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
