"""Any photograph as an array of floats in [-1, 1].

Shapes: H rows, W columns, C channels (1 grey, 3 colour).
"""

import math
import os
import re
import warnings
from collections.abc import Sequence
from importlib.resources import files
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

from spectrain.data.files import expanded, locate_file, nearest
from spectrain.errors import InputError, SpectrainWarning

MAX_SIDE = 8192
MAX_PIXELS = 178_956_970  # Pillow's own limit for a decompression bomb: 0.5 GB of RGB
# A closed list: Pillow would otherwise try readers that start other programs (EPS) or that few people have tested.
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000")
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".gif", ".bmp", ".ppm", ".pgm", ".jp2")
LISTED = 20  # pictures of a folder that an error names
SHIPPED = "skimage:"
DEFAULT_IMAGE = "skimage:camera"
WHITE_IS_ZERO = (262, 0)  # TIFF tag PhotometricInterpretation
LUMA = (0.2125, 0.7154, 0.0721)  # ITU-R BT.709 on the encoded values, as skimage.color.rgb2gray

Pixels = Float[np.ndarray, "H W C"]


def read_image(
    path: str | os.PathLike[str] | None = None,
    size: int | Sequence[int] | None = None,
    *,
    grayscale: bool = False,
) -> Float[np.ndarray, "H W C"]:
    """Return the image as float32 [H, W, C], 2 * (stored value / largest value) - 1, C = 1 (grey) or 3 (colour).

    `path`: a file, "skimage:NAME" for a picture inside scikit-image's wheel (nothing is ever downloaded), or None for
    scikit-image's camera. Of an animation or a file of several pages the first frame is read; EXIF rotation is applied.
    Transparent pixels are laid over white, what a page or a browser would show behind them.
    16 bit grey keeps its 16 bits. 16 bit colour is read with 8 (Pillow's limit) and warns. Float and 32 bit files are
    taken as they are when they lie in [0, 1] (float) or [0, 65535] (integer), otherwise stretched to the full range
    with a warning.

    `size`: None keeps the file's size; n puts n on the longer side and keeps the aspect ratio (at least one pixel on
    the other); (height, width) is taken exactly. Resized in float by Pillow's antialiased bilinear filter, which cannot
    overshoot (no ringing at edges, no value outside the file's). `grayscale` weighs the colours as BT.709 does.

    Raises InputError naming `data.path` or `data.size`.
    """
    checked = check_size(size)
    if not isinstance(path, str | os.PathLike | None):
        raise InputError(
            f"data.path={path!r} is not a path: give an image file, {SHIPPED}NAME, or null for the default."
        )
    name = DEFAULT_IMAGE if path is None else os.fspath(path)
    pixels = _decode(_locate(name), name)
    if grayscale and pixels.shape[2] == 3:
        pixels = (pixels @ np.asarray(LUMA, np.float32))[:, :, None]
    height, width = pixels.shape[:2]
    shape = target_shape((height, width), checked)
    if shape[0] > height or shape[1] > width:
        warnings.warn(
            f"data.path={name} has {height}x{width} pixels (height x width) and data.size={size} enlarges it to "
            f"{shape[0]}x{shape[1]}: the added pixels hold no new detail.",
            SpectrainWarning,
            stacklevel=2,
        )
    return 2 * _resize(pixels, shape) - 1


def check_size(size: Any) -> int | tuple[int, int] | None:
    """Return `size` as None, n, or (height, width), or raise an InputError that names data.size."""
    if size is None or _is_side(size):
        return None if size is None else int(size)
    if isinstance(size, Sequence) and not isinstance(size, str | bytes) and len(size) == 2 and all(map(_is_side, size)):
        return int(size[0]), int(size[1])
    raise InputError(
        f"data.size={size!r} is not usable: give a whole number from 1 to {MAX_SIDE} (pixels on the longer side), "
        "two of them [height, width], or null for the file's own size."
    )


def target_shape(shape: tuple[int, int], size: int | tuple[int, int] | None) -> tuple[int, int]:
    """Return the (height, width) that `size` makes of an image of `shape`."""
    if size is None:
        return shape
    if isinstance(size, tuple):
        return size
    longer = max(shape)
    height, width = (max(1, round(size * side / longer)) for side in shape)
    return height, width


def shipped_images() -> dict[str, Path]:
    """Return name -> file of the pictures inside scikit-image's wheel, the ones that need no download."""
    folder = Path(str(files("skimage") / "data"))
    return {f.stem: f for f in sorted(folder.iterdir()) if f.suffix in {".png", ".jpg"}}


def _is_side(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= MAX_SIDE


def _locate(name: str) -> Path:
    if name.startswith(SHIPPED):
        shipped = shipped_images()
        stem = name.removeprefix(SHIPPED)
        if stem not in shipped:
            raise InputError(
                f"data.path={name} is not a picture shipped with scikit-image{nearest(stem, shipped, SHIPPED)}; "
                f"there are {', '.join(shipped)}."
            )
        return shipped[stem]
    try:
        file = expanded(name)
        if name and file.is_dir():
            raise InputError(_folder(name, file))
    except OSError as error:
        raise InputError(f"data.path={name} cannot be read: {error.strerror}.") from error
    hint = f" (did you mean {SHIPPED}{file.name}?)" if file.name in shipped_images() else ""
    return locate_file(name, "an image file", hint)


def _folder(name: str, folder: Path) -> str:
    """What to type for a folder of pictures."""
    found = sorted(f.name for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
    if not found:
        return f"data.path={name} is a directory without pictures; give one image file."
    shown = found[:LISTED]
    more = f" (and {len(found) - LISTED} more)" if len(found) > LISTED else ""
    paths = ",".join(str(Path(name) / one) for one in shown)
    return (
        f"data.path={name} is a directory; give one image file inside it, take its {len(found)} pictures for the "
        f"frames of one film with data=frames, or fit each in a run of its own with -m data.path={paths}{more}"
    )


def _decode(file: Path, name: str) -> Pixels:
    # A broken file makes Pillow raise nearly anything (OSError, SyntaxError, struct.error, ValueError, ...).
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS below is the limit
            with Image.open(file, formats=FORMATS) as image:
                if math.prod(image.size) > MAX_PIXELS:
                    raise Image.DecompressionBombError
                _warn_if_reduced(image, name)
                white_is_zero = getattr(image, "tag_v2", {}).get(WHITE_IS_ZERO[0]) == WHITE_IS_ZERO[1]
                values = _unit_values(ImageOps.exif_transpose(image), name)
                return 1 - values if white_is_zero and _is_wide(image) else values  # Pillow inverts 8 bits itself
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"data.path={name} has more than {MAX_PIXELS} pixels; give a smaller image.") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"data.path={name} is not an image that can be read; allowed are {', '.join(FORMATS)}: convert it first."
        ) from error
    except PermissionError as error:
        raise InputError(f"data.path={name} cannot be read: {error.strerror}.") from error
    except Exception as error:
        raise InputError(f"data.path={name} is broken or truncated ({error}); give an intact image file.") from error


def _warn_if_reduced(image: Image.Image, name: str) -> None:
    tiles = getattr(image, "tile", [])
    # Raw modes such as RGB;16B name the file's own layout (BGR;16 is another thing: 16 bits for all three colours).
    if image.mode in {"RGB", "RGBA", "LA"} and any(re.search(";16[BLN]", str(tile[3])) for tile in tiles):
        warnings.warn(
            f"data.path={name} stores 16 bit colours; Pillow reads them with 8 bits. Only 16 bit grey is read exactly.",
            SpectrainWarning,
            stacklevel=4,
        )


def _unit_values(image: Image.Image, name: str) -> Pixels:
    """Values in [0, 1], transparency laid over white."""
    if _is_wide(image):
        return _from_wide(np.asarray(image), name)[:, :, None]
    transparent = image.has_transparency_data
    grey = image.mode in {"1", "L", "LA", "La"}
    mode = ("LA" if transparent else "L") if grey else ("RGBA" if transparent else "RGB")
    values: Pixels = np.asarray(image.convert(mode), np.float32) / np.float32(255)
    if values.ndim == 2:
        return values[:, :, None]
    if transparent:
        alpha = values[:, :, -1:]
        values = alpha * values[:, :, :-1] + (1 - alpha)
    return values


def _is_wide(image: Image.Image) -> bool:
    return bool(image.mode == "F" or image.mode.startswith("I"))


def _from_wide(values: Any, name: str) -> Float[np.ndarray, "H W"]:
    """16 bit, 32 bit and float greys -> [0, 1]."""
    if not np.isfinite(values).all():
        raise InputError(f"data.path={name} holds NaN or infinite pixels; give an image of finite numbers.")
    low, high = float(values.min()), float(values.max())
    top = 1.0 if values.dtype.kind == "f" else 65535.0
    if low >= 0 and high <= top:
        return np.asarray(values / top, np.float32)
    if low == high:
        raise InputError(f"data.path={name} holds only the value {low:g}; allowed are values in [0, {top:g}].")
    warnings.warn(
        f"data.path={name} holds values from {low:g} to {high:g}, outside [0, {top:g}]; they are stretched to the "
        "full range.",
        SpectrainWarning,
        stacklevel=5,
    )
    return np.asarray((values - low) / (high - low), np.float32)


def _resize(pixels: Pixels, shape: tuple[int, int]) -> Pixels:
    if pixels.shape[:2] == shape:
        return pixels
    # One float channel at a time: Pillow's 8 bit modes would round the result.
    channels = [
        np.asarray(Image.fromarray(channel).resize(shape[::-1], Image.Resampling.BILINEAR))
        for channel in np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
    ]
    resized: Pixels = np.stack(channels, axis=2).clip(0, 1)
    return resized
