"""The last outputs of a run, each written whatever has become of the others."""

import errno
import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pytorch_lightning.loggers import Logger

from spectrain.errors import SpectrainWarning
from spectrain.lightning.loggers import MetricsCSV

T = TypeVar("T")
# Of a disk that does not take what is written, and not of a bug.
DISK = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EFBIG", "EIO", "ESTALE")}


class Outputs:
    """A full disk, a quota or a folder without permission costs what could not be written there, and nothing else.

    `finish` raises the first of these errors once all is done: the run then ends with its sentence and exit code.
    """

    def __init__(self) -> None:
        self.failed: OSError | None = None

    def write(self, what: str, writer: Callable[[], T]) -> T | None:
        """What `writer` returns; None and a warning where the disk did not take it."""
        try:
            return writer()
        except Exception as error:  # closing a file that did not fit fails in ways of its own
            cause = _disk_error(error)
            if cause is None:
                raise
            warnings.warn(
                f"{what} could not be written ({cause.strerror}); the other outputs go on.",
                SpectrainWarning,
                stacklevel=2,
            )
            self.failed = self.failed or cause
            return None

    def write_summary(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """summary.json, by name."""
        self.write("summary.json", lambda: write_json(folder / "summary.json", summary))

    def finish(self, loggers: Iterable[Logger] = ()) -> None:
        """Raise what went wrong, here or in metrics.csv.

        Raises:
            OSError: the first output that could not be written.
        """
        logs = [logger.failed for logger in loggers if isinstance(logger, MetricsCSV)]
        error = next((found for found in [self.failed, *logs] if found is not None), None)
        if error is not None:
            raise error


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Nested dicts, lists and primitives; JSON has no nan and no infinity: null."""
    path.write_text(json.dumps(_finite(values), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _disk_error(error: BaseException | None) -> OSError | None:
    """The error itself, or the disk's behind it; a bug that shows while a missing file is handled stays a bug."""
    if isinstance(error, OSError):
        return error
    while error is not None and not (isinstance(error, OSError) and error.errno in DISK):
        error = error.__cause__ or error.__context__
    return error
