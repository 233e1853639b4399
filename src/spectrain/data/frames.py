"""The frames of a film as a regression problem: time and coordinates of a pixel -> its value.

Shapes: T frames, H rows, W columns, C channels, N = T H W pixels, d = 3 coordinates.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from spectrain import plots
from spectrain.data.field import Columns, FieldDataModule, Figures, stacked, whole_number
from spectrain.data.folders import read_frames
from spectrain.data.image import coordinate_grid
from spectrain.data.image_io import check_size, read_image
from spectrain.errors import InputError
from spectrain.metrics import FieldMetrics, ImageMetrics

SHOWN = 5  # frames of the contact sheet
PAN = 12  # frames of the film that is made where no folder is given


class FramesDataModule(FieldDataModule):
    """A film, a stack of slices or a time lapse for a network f: (t, row, column) in [-1, 1]^3 -> values in [-1, 1]^C.

    `path`: a folder of pictures of one size, in the order of their names, or None for a view that moves over
    scikit-image's camera. `size`, `grayscale`: as for one picture. `frames`: only the first so many. `holdout`: train
    on every other frame; `psnr_heldout` is on the rest. `batch_size`, `seed`, `chunk_size`: see `FieldDataModule`.

    Attributes: `film` [T, H, W, C]; `heldout_mask` [T, H, W] or None.

    Raises InputError naming data.path and the picture in it, data.size, data.frames or a key of `FieldDataModule`.
    """

    def __init__(
        self,
        path: str | None = None,
        size: int | tuple[int, int] | None = 64,
        *,
        grayscale: bool = False,
        frames: int | None = None,
        holdout: bool = False,
        batch_size: int | None = None,
        seed: int = 0,
        chunk_size: int = 16384,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, chunk_size=chunk_size)
        self.path, self.grayscale = path, grayscale
        self.frames = None if frames is None else whole_number("data.frames", frames)
        self.film = self._read(size)
        count, height, width = self.film.shape[:3]
        if count < 2 + holdout:
            given = f"data.path={path} has" if frames is None else f"data.frames={frames} leaves"
            raise InputError(
                f"{given} {count} frame{'s' * (count != 1)}; give {2 + holdout} or more, or data=image for one picture."
            )
        held = torch.arange(count) % 2 == 1
        self.heldout_mask = held[:, None, None].expand(count, height, width) if holdout else None
        pixels = torch.arange(self.film.shape[:3].numel())
        trained = pixels[~self.heldout_mask.flatten()] if self.heldout_mask is not None else pixels
        self.set_points(_places(count, (height, width)), self.film.flatten(0, 2), trained)

    def _read(self, size: int | tuple[int, int] | None) -> Float[Tensor, "T H W C"]:
        if self.path is not None:
            return torch.from_numpy(read_frames(self.path, size, grayscale=self.grayscale, frames=self.frames))
        given = check_size(size)
        if not isinstance(given, int | None):
            raise InputError(f"data.size={list(given)}: the film without data.path is square; give one number.")
        picture = read_image(None, None if given is None else 2 * given)
        side = picture.shape[0] // 2
        count = min(PAN, side + 1) if self.frames is None else self.frames
        if count > side + 1:
            raise InputError(
                f"data.frames={count} is above the {side + 1} views of this film at data.size={size}; give fewer, "
                "or a larger size."
            )
        corners = np.linspace(0, side, count).round().astype(int)
        return torch.from_numpy(np.stack([picture[k : k + side, k : k + side] for k in corners]))

    def metrics(self) -> ImageMetrics:
        """PSNR and MSE on all pixels of all frames, the mean of their SSIM."""
        return ImageMetrics(self.film, self.heldout_mask)

    def figures(self, metrics: FieldMetrics, runs: Mapping[str, Columns]) -> Figures:
        """Some frames beside their reconstructions, the PSNR of each frame; the PSNR against steps and time."""
        target, found = metrics.target.cpu(), metrics.measured().cpu()
        chosen = np.unique(np.linspace(0, len(target) - 1, SHOWN).round().astype(int))
        held = np.arange(len(target)) % 2 == 1 if self.heldout_mask is not None else np.zeros(len(target), bool)
        drawn: Figures = {
            "frames": (
                plots.frames_figure,
                {
                    "number": chosen + 1,
                    "target": target[chosen].numpy(),
                    "reconstruction": found[chosen].numpy(),
                    "mse": (found - target).square().flatten(1).mean(1).numpy(),
                    "heldout": held,
                },
            )
        }
        if runs:
            drawn["psnr"] = (plots.psnr_figure, stacked(runs, ("step", "seconds", "psnr")))
        return drawn

    def evaluation(self, size: int | None = None) -> tuple[Float[Tensor, "N d"], FieldMetrics, str]:
        """At another size than that of the training, the target is the same film resized to it."""
        if size is None:
            return self.points, self.metrics(), self._words(self.film)
        film = self._read(size)
        sides = film.shape[1], film.shape[2]
        held = None if self.heldout_mask is None else self.heldout_mask[:, :1, :1].expand(film.shape[:3])
        return (
            _places(len(film), sides, (self.film.shape[1], self.film.shape[2])),
            ImageMetrics(film, held),
            self._words(film),
        )

    def _words(self, film: Tensor) -> str:
        return f"in {len(film)} frames of {film.shape[2]} x {film.shape[1]} pixels"

    def export(self, folder: Path, metrics: FieldMetrics) -> None:
        """``frames/NUMBER.png``, the contact sheet, and ``reconstruction.gif`` with the target on its left."""
        target, found = (_bytes(film) for film in (metrics.target, metrics.measured()))
        (folder / "frames").mkdir(exist_ok=True)
        for number, frame in enumerate(found, start=1):
            Image.fromarray(frame).save(folder / "frames" / f"{number:04d}.png")
        moving = [Image.fromarray(np.concatenate(pair, axis=1)) for pair in zip(target, found, strict=True)]
        moving[0].save(folder / "reconstruction.gif", save_all=True, append_images=moving[1:], duration=100, loop=0)
        for name, (draw, drawn) in self.figures(metrics, {}).items():
            plots.save_figure(draw(**drawn), folder / name, drawn)


def _places(count: int, sides: tuple[int, int], trained: tuple[int, int] | None = None) -> Float[Tensor, "N d"]:
    """(t, row, column): the first and the last frame at -1 and +1, and each picture as `coordinate_grid` has it."""
    grid = coordinate_grid(*sides, trained)
    t = torch.linspace(-1, 1, count).repeat_interleave(len(grid))
    return torch.cat((t[:, None], grid.repeat(count, 1)), dim=1)


def _bytes(film: Float[Tensor, "T H W C"]) -> np.ndarray:
    values = ((film.cpu().clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    return values[..., 0] if values.shape[3] == 1 else values
