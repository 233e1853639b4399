"""A folder of pictures: the frames of a film, or a sub-folder of examples for each class.

Shapes: T pictures, H rows, W columns, C channels.
"""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from spectrain.data.files import expanded
from spectrain.data.image_io import SUFFIXES, Pixels, read_image
from spectrain.errors import InputError

MAX_VALUES = 4_000_000 * 3  # 64 frames of 256 x 256 pixels in colour


def read_frames(
    path: str, size: int | Sequence[int] | None = None, *, grayscale: bool = False, frames: int | None = None
) -> Float[np.ndarray, "T H W C"]:
    """The first `frames` (None: all) pictures of a folder, in the order of their names, numbers in them as numbers.

    Each is read as by `read_image`; after resizing all must have one shape.

    Raises InputError naming data.path (and the picture in it), data.size or data.frames.
    """
    files = pictures_in(_folder(path, "data=frames takes a folder of pictures, and data=image one picture"))
    if not files:
        raise InputError(f"data.path={path} is a folder without pictures ({', '.join(SUFFIXES)}).")
    if frames is not None and frames > len(files):
        raise InputError(f"data.frames={frames} is above the {len(files)} pictures in data.path={path}.")
    return _stacked(files[:frames], path, size, grayscale, "data.frames or a smaller data.size")


def read_classes(path: str) -> tuple[Float[np.ndarray, "T HWC"], np.ndarray]:
    """All pictures in the sub-folders of a folder, a row of values in [-1, 1] each, and the names of their sub-folders.

    Raises InputError naming data.path and the picture in it.
    """
    folder = _folder(path, "classes are sub-folders with pictures")
    classes = {sub.name: pictures_in(sub) for sub in sorted(folder.iterdir()) if sub.is_dir()}
    classes = {name: files for name, files in classes.items() if files}
    if len(classes) < 2:
        raise InputError(
            f"data.path={path} has {len(classes)} sub-folders with pictures; each class is one, and there must be two."
        )
    files = [file for of_class in classes.values() for file in of_class]
    pictures = _stacked(files, path, None, False, "fewer or smaller pictures")
    labels = np.repeat(list(classes), [len(of_class) for of_class in classes.values()])
    return pictures.reshape(len(pictures), -1), labels


def pictures_in(folder: Path) -> list[Path]:
    """Files with the suffix of a picture, frame9 before frame10; hidden ones are left out."""
    found = (f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
    return sorted(found, key=lambda f: [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in _parts(f.name)])


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"([0-9]+)", name.lower()) if part]


def _folder(path: Any, what: str) -> Path:
    if not isinstance(path, str) or not path:
        raise InputError(f"data.path={path!r} is not a path: {what}.")
    folder = expanded(path)
    try:
        if not folder.is_dir():
            state = "is a file" if folder.exists() else "does not exist"
            raise InputError(f"data.path={path} {state}: {what}.")
        next(folder.iterdir(), None)
    except OSError as error:
        raise InputError(f"data.path={path} cannot be read: {error.strerror}.") from error
    return folder


def _stacked(files: Sequence[Path], path: str, size: Any, grayscale: bool, less: str) -> Float[np.ndarray, "T H W C"]:
    """Pictures of one shape; what the first one warns of is not said of each."""
    first = read_image(files[0], size, grayscale=grayscale)
    if len(files) * first.size > MAX_VALUES:
        raise InputError(
            f"The {len(files)} pictures of {shape_of(first)} in data.path={path} have "
            f"{len(files) * first.size:,} values, more than {MAX_VALUES:,}; give {less}."
        )
    pictures = [first]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in files[1:]:
            picture = read_image(file, size, grayscale=grayscale)
            if picture.shape != first.shape:
                at = "" if size is None else f" after data.size={size}"
                raise InputError(
                    f"data.path={file} has{at} {shape_of(picture)} and {files[0].name} {shape_of(first)}; all "
                    "pictures of a folder must have one size and be all grey or all in colour."
                )
            pictures.append(picture)
    return np.stack(pictures)


def shape_of(picture: Pixels) -> str:
    """64x48 pixels in colour."""
    return f"{picture.shape[1]}x{picture.shape[0]} pixels in {'grey' if picture.shape[2] == 1 else 'colour'}"
