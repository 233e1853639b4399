"""A file that a person named: is it there, and what is in it.

Letters: n rows, m columns.
"""

import csv
import difflib
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spectrain.errors import InputError

DELIMITERS = ",;\t|"
ARRAYS = (".csv", ".tsv", ".txt", ".npy", ".npz", ".pt", ".pth")


@dataclass(frozen=True)
class Sheet:
    """Rows of cells under m names; of a file without a header the names are column_1, ..., column_m.

    `first_line`: what a person calls the first row. The cells of a CSV file are texts.
    """

    path: str
    names: tuple[str, ...]
    rows: Sequence[Sequence[str]] | np.ndarray
    first_line: int = 1

    def place(self, row: int, column: int) -> str:
        """line 7, column 'age'."""
        return f"line {self.first_line + row}, column {self.names[column]!r}"

    def numbers(self, columns: Iterable[int]) -> np.ndarray:
        """The cells of some columns, [n, m] of float64; InputError naming the place of one that is no finite number."""
        chosen = list(columns)
        if isinstance(self.rows, np.ndarray):
            values: np.ndarray = np.asarray(self.rows, np.float64)[:, chosen]
            bad = np.argwhere(~np.isfinite(values))
            if len(bad):
                self.refuse(int(bad[0][0]), chosen[int(bad[0][1])])
            return values
        return np.array([[self._number(i, j) for j in chosen] for i in range(len(self.rows))], np.float64)

    def _number(self, row: int, column: int) -> float:
        try:
            value = float(self.rows[row][column])
        except ValueError:
            self.refuse(row, column)
        if not math.isfinite(value):
            self.refuse(row, column)
        return value

    def refuse(self, row: int, column: int) -> None:
        """Raise the InputError for a cell."""
        cell = str(self.rows[row][column]).strip()
        where = self.place(row, column)
        if cell.lower() in MISSING:
            raise InputError(
                f"data.path={self.path} has no value in {where}; leave such rows out of the file or fill them in."
            )
        raise InputError(f"data.path={self.path} has {cell!r} in {where}; it must be a finite number.")


MISSING = ("", "nan", "na", "n/a", "null", "none", "?")


def locate_file(name: str, what: str, hint: str = "") -> Path:
    """Return the file, or raise an InputError that says what is wrong with it.

    `what`: "an image file"; `hint`: what was probably meant, in place of the nearest name in its folder.
    """
    try:
        file = expanded(name)
        if not name or not file.exists():
            siblings = [f.name for f in file.parent.iterdir()] if file.parent.is_dir() else []
            raise InputError(f"data.path={name!r} does not exist{hint or nearest(file.name, siblings)}; give {what}.")
        if file.is_dir():
            raise InputError(f"data.path={name} is a directory; give a file inside it.")
        if not file.is_file():
            raise InputError(f"data.path={name} is not a regular file; give {what}.")
        if file.stat().st_size == 0:
            raise InputError(f"data.path={name} is an empty file (0 bytes); give {what}.")
    except OSError as error:
        raise InputError(f"data.path={name} cannot be read: {error.strerror}.") from error
    return file


def expanded(name: str) -> Path:
    """The path, with ~ put in place; InputError where there is no such user."""
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise InputError(f"data.path={name} names the home of a user that does not exist.") from error


def nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """What was probably meant, in brackets."""
    match = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {prefix}{match[0]}?)" if match else ""


def read_sheet(name: str, delimiter: str | None = None) -> Sheet:
    """Read a CSV, NumPy (.npy, .npz with one array) or torch (.pt with one tensor) file; arrays are [n] or [n, m].

    `delimiter`: of a CSV file; None finds it among comma, semicolon, tab and bar. Nothing is unpickled.

    Raises InputError naming data.path or data.delimiter.
    """
    file = locate_file(name, "a CSV, NumPy or torch file")
    kind = file.suffix.lower()
    if kind not in ARRAYS:
        raise InputError(f"data.path={name} cannot be read: its name must end in one of {', '.join(ARRAYS)}.")
    if kind in (".csv", ".tsv", ".txt"):
        return _read_csv(file, name, delimiter)
    array = _read_tensor(file, name) if kind in (".pt", ".pth") else _read_numpy(file, name)
    if array.dtype.kind not in "fiub":
        raise InputError(f"data.path={name} holds {array.dtype} and not real numbers.")
    if array.ndim not in (1, 2) or array.size == 0:
        raise InputError(f"data.path={name} has the shape {list(array.shape)}; it must be [rows] or [rows, columns].")
    rows = array.reshape(len(array), -1)
    return Sheet(name, tuple(f"column_{j + 1}" for j in range(rows.shape[1])), rows)


def _read_csv(file: Path, name: str, delimiter: str | None) -> Sheet:
    if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1):
        raise InputError(f"data.delimiter={delimiter!r} is not usable: give one character, or null to find it.")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"data.path={name} cannot be read as UTF-8 text ({error}); save it as a CSV file.") from error
    lines = text.splitlines()
    if delimiter is None:
        counts = {mark: lines[0].count(mark) for mark in DELIMITERS} if lines else {}
        delimiter = max(counts, key=lambda mark: counts[mark]) if any(counts.values()) else ","
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    except csv.Error as error:
        raise InputError(
            f"data.path={name} cannot be read as CSV ({error}); look for a quote without its pair."
        ) from error
    while rows and not any(rows[-1]):
        rows.pop()
    if not rows:
        raise InputError(f"data.path={name} holds no rows.")
    if len(rows) == 1 and not any(is_number(cell) for cell in rows[0]):
        raise InputError(f"data.path={name} has a header and no rows below it.")
    header = not any(is_number(cell) for cell in rows[0])
    names = rows.pop(0) if header else [f"column_{j + 1}" for j in range(len(rows[0]))]
    for i, row in enumerate(rows):
        if len(row) != len(names):
            raise InputError(
                f"data.path={name} has {len(row)} cells in line {i + 1 + header} and {len(names)} in the first one; "
                "give every row as many (and data.delimiter, if that was found wrongly)."
            )
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError(f"data.path={name} has two columns named {twice!r}; give them different names.")
    return Sheet(name, tuple(names), rows, 1 + header)


def is_number(cell: str) -> bool:
    """Whether a text is one."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_numpy(file: Path, name: str) -> np.ndarray:
    try:
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            return np.asarray(found[_only(found.files, name, "array")])
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"data.path={name} is not a NumPy file of plain numbers: {error}") from error


def _read_tensor(file: Path, name: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"data.path={name} is not a torch file that can be loaded safely: it must hold one tensor."
        ) from error
    if isinstance(found, dict):
        found = found[_only(list(found), name, "tensor")]
    if not isinstance(found, torch.Tensor):
        raise InputError(f"data.path={name} holds a {type(found).__name__}; it must hold one tensor.")
    array: np.ndarray = found.detach().double().numpy()
    return array


def _only(names: Sequence[Any], name: str, kind: str) -> Any:
    if len(names) != 1:
        listed = ", ".join(map(str, names)) or "none"
        raise InputError(f"data.path={name} holds {len(names)} {kind}s ({listed}); give a file with one.")
    return names[0]
