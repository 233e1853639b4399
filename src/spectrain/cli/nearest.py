"""The name a person most likely meant."""

import difflib
from collections.abc import Sequence


def nearest(name: str, candidates: Sequence[str]) -> str | None:
    """The candidate `name` most likely stands for, or None.

    In this order: the same last part (width -> model.width); a close spelling beside it (model.wdith), of the whole
    (modle.width), or of a last part anywhere (rnak -> spectrum.rank).
    """
    parent, _, last = name.rpartition(".")
    ends = [(key.rpartition(".")[0], key.rpartition(".")[2], key) for key in candidates]
    beside = {end: key for before, end, key in ends if before == parent}
    elsewhere = {key: key for before, _, key in ends if before != parent}
    anywhere = {end: key for _, end, key in reversed(ends)}
    for text, pool, cutoff in (
        (name, {key: key for _, end, key in ends if end == last}, 0.0),
        (last, beside, 0.55),
        (name, elsewhere, 0.75),
        (last, anywhere, 0.7),
    ):
        if close := difflib.get_close_matches(text, list(pool), n=1, cutoff=cutoff):
            return pool[close[0]]
    return None
