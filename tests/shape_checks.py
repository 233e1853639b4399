"""beartype in the form that jaxtyping's import hook needs for this code."""

from collections.abc import Callable
from typing import Any, Self

from beartype import BeartypeConf, beartype

# An int is a float wherever a float is asked for.
_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable) -> Callable:
    """Check arguments and result together, after the call.

    jaxtyping asks twice for each function: once with the arguments alone (the result is Any), to be checked before the
    call, and once with the result. The first is left out, so that a function's own InputError about a wrong shape is
    what a test sees; an argument of a wrong shape that the function lets pass is found by the second.
    """
    hints = function.__annotations__
    if hints.get("return") is Any:
        return function
    # jaxtyping decorates methods one by one, where beartype cannot know which class Self is.
    function.__annotations__ = {name: Any if hint is Self else hint for name, hint in hints.items()}
    return _beartype(function)
