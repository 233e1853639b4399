"""Checks of a study's settings, with messages that name the key a person typed."""

from collections.abc import Mapping, Sequence
from typing import Any

from spectrain.errors import InputError


def check_whole(study: Any, *names: str, least: int = 1) -> None:
    """Raise InputError unless each is a whole number of at least `least`, or a list of them."""
    for name in names:
        value = getattr(study, name)
        if not _all(value, lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= least):
            raise InputError(f"study.{name}={value!r} cannot be used; it must be {_kind(value)} of at least {least}.")


def check_number(study: Any, *names: str, above: float = 0.0, zero: bool = False, most: float = float("inf")) -> None:
    """Raise InputError unless each is a number above `above` (with `zero`: 0 or more) up to `most`, or a list."""

    def fits(v: Any) -> bool:
        number = isinstance(v, (int, float)) and not isinstance(v, bool)
        return number and (v >= 0 if zero else v > above) and bool(v <= most)

    for name in names:
        value = getattr(study, name)
        if not _all(value, fits):
            start = "be 0 or more" if zero else f"lie above {above:g}"
            end = f" and at most {most:g}" if most < float("inf") else ""
            raise InputError(f"study.{name}={value!r} cannot be used; it must {start}{end}.")


def check_overrides(study: Any, name: str, what: str) -> None:
    """Raise InputError unless it names two lists of overrides or more."""
    value = getattr(study, name)
    lists = list(value.values()) if isinstance(value, Mapping) else []
    if len(lists) < 2 or not all(_texts(words) for words in lists):
        raise InputError(
            f"study.{name}={value} must have at least two {what} to compare, each a list of overrides, such as "
            f"+study.{name}.mine=['model=siren','model.omega=20']."
        )


def _texts(words: Any) -> bool:
    return isinstance(words, Sequence) and not isinstance(words, str) and all(isinstance(word, str) for word in words)


def _all(value: Any, fits: Any) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return len(value) > 0 and all(fits(v) for v in value)
    return bool(fits(value))


def _kind(value: Any) -> str:
    return "a list of whole numbers" if isinstance(value, Sequence) and not isinstance(value, str) else "a whole number"
