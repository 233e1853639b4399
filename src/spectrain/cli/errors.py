"""What a person sees when something goes wrong: one sentence for what they can mend, a traceback for a bug."""

import errno
import sys
import traceback
from collections.abc import Callable, Iterator

import torch

from spectrain.cli.rank import rank
from spectrain.errors import InputError
from spectrain.lightning import LOST, LostRankError

OK, BUG, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file is larger than is allowed (ulimit -f, or the disk's own limit)",
}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
# A path that runs through a file, or is too long: only a path that a person gave.
_NO_PLACE = {errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
LONGEST_WORD = 300
# torch.save into a file reports a full disk as a RuntimeError with this text, and no errno.
_TORCH_WRITE_FAILED = "PytorchStreamWriter failed writing"


def run_guarded(fn: Callable[[], object], debug: bool = False) -> int:
    """Call `fn` and return the process's exit code: 0, or what the exception it raised means.

    * an `InputError`, a full disk or quota, no permission, a read-only disk: ``error: ...`` on stderr, 2; no traceback
      unless `debug`
    * another process of the run died or hangs: the same with 3
    * Ctrl-C: 130, as shells report it
    * anything else is a bug: its traceback, 1
    """
    try:
        fn()
    except KeyboardInterrupt:
        return INTERRUPTED
    except LostRankError as error:
        _say(str(error))
        return LOST
    except Exception as error:
        sentence = explain(error)
        if debug or sentence is None:
            traceback.print_exception(error)
        if sentence is None:
            return BUG
        _say(sentence)
        return BAD_INPUT
    return OK


def _say(sentence: str) -> None:
    whose = f" (rank {rank()})" if rank() else ""
    print(f"error{whose}: {sentence}", file=sys.stderr, flush=True)


def explain(error: BaseException) -> str | None:
    """One sentence on one line for an error that a person can mend, None for a bug."""
    for cause in _causes(error):
        if isinstance(cause, InputError):
            return " ".join(_shortened(word) for word in str(cause).split())
        if isinstance(cause, OSError) and (sentence := _explain_os_error(cause)):
            return sentence
        if isinstance(cause, RuntimeError) and _TORCH_WRITE_FAILED in str(cause):
            return "a checkpoint could not be written, most likely because the disk is full; free some space."
        if isinstance(cause, (MemoryError, RuntimeError)) and _is_out_of_memory(cause):
            return (
                "there is not enough memory; take a smaller data.batch_size, model.width, spectrum.subset_size or "
                f"spectrum.rank ({str(cause).splitlines()[0] if str(cause) else 'MemoryError'})."
            )
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    """torch's CPU allocator has no exception of its own."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)


def _shortened(word: str) -> str:
    """Nobody reads a path of 5,000 letters."""
    return word if len(word) <= LONGEST_WORD else f"{word[: LONGEST_WORD // 2]}...{word[-LONGEST_WORD // 4 :]}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those it was explicitly raised from (``raise ... from``), then a full disk found on the way.

    What was merely being handled (``__context__``) is followed for a full disk only: cleaning up after one fails in
    many ways, while a library that got over a forbidden cache folder says nothing about the error that came later.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__
    seen.clear()
    context: BaseException | None = error
    while context is not None and id(context) not in seen:
        seen.add(id(context))
        if isinstance(context, OSError) and context.errno in _FULL:
            yield context
        context = context.__cause__ or context.__context__


def _explain_os_error(error: OSError) -> str | None:
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in _FULL:
        way = "free some space, or write to another disk with paths.output_dir=/another/folder"
        return f"{_FULL[error.errno]}{place}; {way}."
    if error.errno in _FORBIDDEN:
        what = "the disk is read-only" if error.errno == errno.EROFS else "permission denied"
        return f"{what}{place}; change its permissions, or write elsewhere with paths.output_dir=/another/folder."
    if error.errno in _NO_PLACE:
        return f"{(error.strerror or 'the path cannot be used').lower()}{place}; give another path."
    return None
