"""A photograph as a regression problem: coordinates of the pixels -> their values.

Shapes: H rows, W columns, C channels, N = H W pixels, n training points, d = 2 coordinates.
"""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from spectrain import plots
from spectrain.data.batches import EndlessBatches, LatticeBatches, lattice_size
from spectrain.data.field import Columns, FieldDataModule, Figures, stacked, whole_number
from spectrain.data.image_io import read_image
from spectrain.errors import InputError, SpectrainWarning
from spectrain.metrics import FieldMetrics, ImageMetrics


def coordinate_grid(height: int, width: int, trained: tuple[int, int] | None = None) -> Float[Tensor, "N d"]:
    """Return the (row, column) coordinates of a grid in C order, the corner pixels at -1 and +1 (a single one at 0).

    `trained` (rows, columns): the corner pixels of that grid are at -1 and +1 instead, and this one covers the same
    area with pixels of another size, as a resized picture does. Pixel j of N lies at (j + 1/2) n / N - 1/2 in pixels of
    the n trained ones; the outer pixels of a finer grid lie beyond the trained ones' centres.
    """
    rows, columns = (_axis(*sizes) for sizes in zip((height, width), trained or (height, width), strict=True))
    return torch.cartesian_prod(rows, columns)


def _axis(size: int, trained: int) -> Tensor:
    if trained == 1:
        return torch.zeros(size)
    if size == trained:
        return torch.linspace(-1, 1, size)
    place = (torch.arange(size) + 0.5) * trained / size - 0.5
    return 2 * place / (trained - 1) - 1


class ImageDataModule(FieldDataModule):
    """An image for a network f: coordinates in [-1, 1]^2 -> values in [-1, 1]^C.

    `path`, `size`, `grayscale`: see `read_image`. `holdout`: train on every other pixel (checkerboard, (row + column)
    even); the others are in `heldout_mask`. `noise`: standard deviation of Gaussian noise on the values trained on,
    drawn by `seed`; what is measured is the clean picture. `downsample`: k trains on the picture averaged over about
    k x k pixels, at the centres of these, and measures the full one. `batch_size`, `seed`, `chunk_size`: see
    `FieldDataModule`. `batches`: "random" pixels, or a "lattice" of every s-th row and column, the densest with at most
    `batch_size` pixels, see `LatticeBatches`.

    Attributes: `image` [H, W, C], clean and full; `grid_shape` (H, W), or that of the smaller picture trained on;
    `coordinates` [N, 2] of all pixels; `heldout_mask` [H, W] or None; `noisy` [H, W, C] or None.

    Validation batches are the whole image in order, held-out pixels included, index = pixel; then the points of a
    smaller picture, if that is trained on.

    Raises InputError naming data.path, data.size, data.batch_size, data.batches, data.seed, data.chunk_size,
    data.holdout, data.noise or data.downsample.
    """

    def __init__(
        self,
        path: str | None = None,
        size: int | tuple[int, int] | None = 64,
        *,
        grayscale: bool = False,
        batch_size: int | None = None,
        batches: str = "random",
        holdout: bool = False,
        noise: float = 0.0,
        downsample: int = 1,
        seed: int = 0,
        chunk_size: int = 16384,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, chunk_size=chunk_size)
        self.path, self.grayscale = path, grayscale
        self.image: Float[Tensor, "H W C"] = torch.from_numpy(read_image(path, size, grayscale=grayscale))
        height, width = _sides(self.image)
        self.coordinates = coordinate_grid(height, width)
        self.heldout_mask = _checkerboard(height, width) if holdout else None
        self.downsample = whole_number("data.downsample", downsample)
        if self.downsample == 1:
            pixels = torch.arange(height * width)
            trained = pixels if self.heldout_mask is None else pixels[~self.heldout_mask.flatten()]
            points, values, self.grid_shape = self.coordinates, self.image.flatten(0, 1), (height, width)
        else:
            small = self._averaged(holdout)
            self.grid_shape = _sides(small)
            points = torch.cat((self.coordinates, coordinate_grid(*self.grid_shape, (height, width))))
            values = torch.cat((self.image.flatten(0, 1), small.flatten(0, 1)))
            trained = torch.arange(height * width, len(points))
        noisy = values + _noise(noise, values.shape, self.seed) if noise else values
        self.noisy = noisy[: height * width].reshape(self.image.shape) if noise else None
        self.set_points(points, values, trained, noisy[trained])
        self.stride = self._stride(batches, batch_size)

    def _stride(self, batches: str, asked: int | None) -> int | None:
        """Between the rows and columns of a lattice; None for random pixels. Sets the batch size to the lattice's."""
        if batches not in ("random", "lattice"):
            raise InputError(f"data.batches={batches!r} is not known; allowed: random, lattice.")
        if batches == "random" or (asked is not None and self.batch_size is None):  # all points, which has been said
            return None
        if asked is None or self.heldout_mask is not None:
            raise InputError(
                "data.batches=lattice is for batches of a whole grid; give data.batch_size and data.holdout=false, or "
                "data.batches=random."
            )
        assert self.grid_shape is not None and self.batch_size is not None
        stride = math.ceil(math.sqrt(len(self.train_x) / self.batch_size))
        # Rows and columns that are left over may let a denser lattice through.
        while stride > 1 and 0 < lattice_size(self.grid_shape, stride - 1) <= self.batch_size:
            stride -= 1
        self.batch_size = lattice_size(self.grid_shape, stride)
        if self.batch_size == 0:
            raise InputError(
                f"data.batch_size={asked} is less than any lattice on {self.grid_shape[0]} x {self.grid_shape[1]} "
                "pixels; give more, or data.batches=random."
            )
        if self.batch_size != asked:
            warnings.warn(
                f"data.batch_size={asked}: rows and columns {stride} apart make {self.batch_size} pixels.",
                SpectrainWarning,
                stacklevel=3,
            )
        return stride

    def _batches(self, shard: tuple[int, int]) -> EndlessBatches:
        if self.stride is None:
            return super()._batches(shard)
        assert self.grid_shape is not None
        x, y = self.train_x, self.train_y
        return LatticeBatches(x, y, self.grid_shape, self.stride, self.seed, self.batches_done, shard)

    def _averaged(self, holdout: bool) -> Float[Tensor, "h w C"]:
        height, width = _sides(self.image)
        k = self.downsample
        if holdout:
            raise InputError(
                f"data.downsample={k} leaves the finer pixels out of the training already; give data.holdout=false."
            )
        if k > min(height, width):
            raise InputError(f"data.downsample={k} is above the {min(height, width)} pixels of the shorter side.")
        shape = (round(height / k), round(width / k))
        averaged = functional.interpolate(self.image.movedim(2, 0)[None], shape, mode="area")[0]
        return averaged.movedim(0, 2).contiguous()

    def metrics(self) -> ImageMetrics:
        """PSNR, SSIM and MSE on all pixels."""
        noisy = self.noisy if self.downsample == 1 else None
        return ImageMetrics(self.image, self.heldout_mask, noisy, extra=len(self.points) - len(self.coordinates))

    def headline(self, runs: Mapping[str, Columns]) -> dict[str, Any]:
        """What stopping at the best step would have given without S, with noise; what bicubic interpolation gives."""
        found: dict[str, Any] = {}
        if self.noisy is not None:
            for run, prefix in zip(runs.values(), ("", "baseline_"), strict=False):
                found[f"{prefix}best_step"] = int(run["step"][run["psnr"].argmax()])
            if "without" in runs:  # the run's own is in every summary
                found["baseline_best_psnr"] = float(runs["without"]["psnr"].max())
        if self.downsample > 1:
            metrics = ImageMetrics(self.image)
            metrics.update(self._bicubic().flatten(0, 1))
            found["psnr_bicubic"] = float(metrics.compute()["psnr"])
        return found

    def _bicubic(self) -> Float[Tensor, "H W C"]:
        small = self.train_y.reshape(*self.grid_shape, -1).movedim(2, 0)[None]  # type: ignore[misc]
        return functional.interpolate(small, _sides(self.image), mode="bicubic")[0].movedim(0, 2)

    def figures(self, metrics: FieldMetrics, runs: Mapping[str, Columns]) -> Figures:
        """Target, reconstruction and error; PSNR against steps and time."""
        drawn: Figures = {"reconstruction": (plots.reconstruction_figure, _pictures(metrics))}
        trained = self._trained_on()
        if trained is not None:
            drawn["pictures"] = (plots.trained_figure, {"trained": trained.numpy(), **_pictures(metrics)})
        if runs:
            drawn["psnr"] = (plots.psnr_figure, stacked(runs, ("step", "seconds", "psnr")))
        return drawn

    def _trained_on(self) -> Float[Tensor, "H W C"] | None:
        """The picture that training sees, where it is another than the target."""
        if self.downsample > 1:
            return self.train_y.reshape(*self.grid_shape, -1)  # type: ignore[misc]
        return self.noisy

    def evaluation(self, size: int | None = None) -> tuple[Float[Tensor, "N d"], FieldMetrics, str]:
        """At another size than that of the training, the target is the same photograph resized to it."""
        x, metrics = self.points, self.metrics()
        if size is not None:
            metrics = ImageMetrics(torch.from_numpy(read_image(self.path, size, grayscale=self.grayscale)))
            x = coordinate_grid(*_sides(metrics.target), _sides(self.image))
        height, width = _sides(metrics.target)
        return x, metrics, f"at {width} x {height} pixels"

    def export(self, folder: Path, metrics: FieldMetrics) -> None:
        """``reconstruction.png`` (the picture itself) and ``comparison.*`` (beside the target)."""
        pixels = ((metrics.measured() + 1) * 127.5).round().clamp(0, 255).byte().numpy()
        Image.fromarray(np.squeeze(pixels, axis=2) if pixels.shape[2] == 1 else pixels).save(
            folder / "reconstruction.png"
        )
        arrays = _pictures(metrics)
        plots.save_figure(plots.reconstruction_figure(**arrays), folder / "comparison", arrays)


def _sides(image: Float[Tensor, "H W C"]) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _pictures(metrics: FieldMetrics) -> dict[str, np.ndarray]:
    return {"target": metrics.target.cpu().numpy(), "reconstruction": metrics.measured().cpu().numpy()}


def _noise(deviation: Any, shape: torch.Size, seed: int) -> Tensor:
    if not isinstance(deviation, int | float) or isinstance(deviation, bool) or not 0 < deviation < float("inf"):
        raise InputError(f"data.noise={deviation!r} is not usable: give a standard deviation, 0 or more.")
    drawn = np.random.default_rng([seed, 1]).standard_normal(tuple(shape))
    return deviation * torch.from_numpy(drawn).float()


def _checkerboard(height: int, width: int) -> Tensor:
    if height * width < 2:
        raise InputError("data.holdout=true needs an image of 2 pixels or more; give a larger data.size.")
    return (torch.arange(height)[:, None] + torch.arange(width)) % 2 == 1
