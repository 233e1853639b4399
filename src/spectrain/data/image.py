"""A photograph as a regression problem: coordinates of the pixels -> their values.

Shapes: H rows, W columns, C channels, N = H W pixels, n training points, b points of a batch, d = 2 coordinates.
"""

import warnings
from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from pytorch_lightning import LightningDataModule
from torch import Tensor

from spectrain.data.image_io import read_image
from spectrain.errors import InputError, SpectrainWarning

Batch = tuple[Float[Tensor, "b d"], Float[Tensor, "b C"], Int[Tensor, " b"]]


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


class EndlessBatches:
    """Batches t = start(), start() + 1, ... without end; batch t is a pure function of (seed, t).

    Full batch (`batch_size=None`): always the same tensors, nothing is copied. Otherwise epoch e is a permutation of
    the n points drawn from (seed, e) and cut into floor(n / batch_size) batches: every batch has batch_size points, no
    point comes twice in an epoch, and the n mod batch_size points left over (others in each epoch) wait for the next.
    No global random number is drawn. `shard = (rank, world)` yields rows rank, rank + world, ... of the global batch:
    shares differ by one point at most when world does not divide it.
    """

    def __init__(
        self,
        x: Float[Tensor, "n d"],
        y: Float[Tensor, "n C"],
        batch_size: int | None,
        seed: int,
        start: Callable[[], int],
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.x, self.y, self.batch_size, self.seed, self.start = x, y, batch_size, seed, start
        self.rank, self.world = shard
        self._order: tuple[int, Tensor] | None = None  # (epoch, its permutation)

    def rows(self, t: int) -> Int[Tensor, " b"]:
        """Return the training rows of global batch t, before the split over ranks (only with a batch_size)."""
        assert self.batch_size is not None
        epoch, place = divmod(t, len(self.x) // self.batch_size)
        return self._permutation(epoch)[place * self.batch_size : (place + 1) * self.batch_size]

    def _permutation(self, epoch: int) -> Int[Tensor, " n"]:
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.x))
            self._order = (epoch, torch.from_numpy(order))
        return self._order[1]

    def __iter__(self) -> Iterator[Batch]:
        if self.batch_size is None:
            share = slice(self.rank, None, self.world)
            batch = (self.x[share], self.y[share], torch.arange(len(self.x))[share])
            while True:
                yield batch
        t = self.start()
        while True:
            index = self.rows(t)[self.rank :: self.world]
            yield self.x[index], self.y[index], index
            t += 1


class Chunks:
    """All points in order, `size` at a time; views, nothing is copied."""

    def __init__(self, x: Float[Tensor, "N d"], y: Float[Tensor, "N C"], size: int) -> None:
        whole = (x, y, torch.arange(len(x)))
        self.batches = [(x, y, index) for x, y, index in zip(*(torch.split(t, size) for t in whole), strict=True)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class ImageDataModule(LightningDataModule):
    """An image for a network f: coordinates in [-1, 1]^2 -> values in [-1, 1]^C.

    `path`, `size`, `grayscale`: see `read_image`. `batch_size`: points in a batch over all ranks together, None for all
    of them. `holdout`: train on every other pixel (checkerboard, (row + column) even); the others are in
    `heldout_mask`. `seed`: of the epochs' permutations. `chunk_size`: points in a validation batch.

    Attributes: `image` [H, W, C]; `grid_shape` (H, W); `coordinates` [N, 2] of all pixels; `train_x` [n, 2];
    `train_y` [n, C]; `train_pixels` [n], the pixel of each training row; `heldout_mask` [H, W] or None;
    `target_mean` [C], the mean of train_y; `in_features` 2; `out_features` C.

    Training batches (x, y, index) come without end (the trainer stops by max_steps), index = row of train_x.
    Validation batches are the whole image in order, index = pixel; every rank sees all of them.
    A checkpoint stores the number of batches done, so that a resumed run goes on with the batch that was next.

    Raises InputError naming data.path, data.size, data.batch_size, data.seed, data.chunk_size or data.holdout.
    """

    def __init__(
        self,
        path: str | None = None,
        size: int | tuple[int, int] | None = 64,
        *,
        grayscale: bool = False,
        batch_size: int | None = None,
        holdout: bool = False,
        seed: int = 0,
        chunk_size: int = 16384,
    ) -> None:
        super().__init__()
        self.seed = _whole("data.seed", seed, least=0)
        self.chunk_size = _whole("data.chunk_size", chunk_size)
        wanted = None if batch_size is None else _whole("data.batch_size", batch_size)
        self.image: Float[Tensor, "H W C"] = torch.from_numpy(read_image(path, size, grayscale=grayscale))
        height, width, self.out_features = self.image.shape
        self.in_features = 2
        self.grid_shape = (height, width)
        self.coordinates = coordinate_grid(height, width)
        self.heldout_mask = _checkerboard(height, width) if holdout else None
        pixels = torch.arange(height * width)
        self.train_pixels = pixels if self.heldout_mask is None else pixels[~self.heldout_mask.flatten()]
        self.train_x = self.coordinates[self.train_pixels]
        self.train_y = self.image.flatten(0, 1)[self.train_pixels]
        self.target_mean = self.train_y.mean(0)
        self.batch_size = _clip(wanted, len(self.train_x))
        self._moved: tuple[Batch, Batch] | None = None  # the full batch and its copy on the device
        self._origin = (0, 0)  # (batches, optimizer steps) done when the loaded checkpoint was written

    def train_dataloader(self) -> EndlessBatches:
        """Return the endless training batches, from the batch that is next."""
        shard = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        points = self.batch_size or len(self.train_x)
        if points < shard[1]:
            raise InputError(
                f"data.batch_size={points} is less than the {shard[1]} processes that share a batch; give "
                f"{shard[1]} or more."
            )
        return EndlessBatches(self.train_x, self.train_y, self.batch_size, self.seed, self.batches_done, shard)

    def val_dataloader(self) -> Chunks:
        """Return the whole image, held-out pixels included, in order."""
        return Chunks(self.coordinates, self.image.flatten(0, 1), self.chunk_size)

    test_dataloader = predict_dataloader = val_dataloader

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch to the device; the full batch only once."""
        if self.batch_size is not None or not self._training:
            return cast(Batch, super().transfer_batch_to_device(batch, device, dataloader_idx))
        if self._moved is None or self._moved[0] is not batch or self._moved[1][0].device != device:
            self._moved = (batch, cast(Batch, super().transfer_batch_to_device(batch, device, dataloader_idx)))
        return self._moved[1]

    @property
    def _training(self) -> bool:
        return self.trainer is not None and bool(self.trainer.training)

    def batches_done(self) -> int:
        """Return how many global batches the completed optimizer steps have used."""
        batches, steps = self._origin
        if self.trainer is None:
            return batches
        if self.trainer.global_step < steps:  # another trainer, which starts from nothing
            batches, steps = 0, 0
        return batches + (self.trainer.global_step - steps) * int(self.trainer.accumulate_grad_batches)

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches and of optimizer steps done."""
        steps = self._origin[1] if self.trainer is None else self.trainer.global_step
        return {"batches": self.batches_done(), "steps": steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the batches that `state_dict` counts."""
        self._origin = (int(state_dict["batches"]), int(state_dict["steps"]))


def _checkerboard(height: int, width: int) -> Tensor:
    if height * width < 2:
        raise InputError("data.holdout=true needs an image of 2 pixels or more; give a larger data.size.")
    return (torch.arange(height)[:, None] + torch.arange(width)) % 2 == 1


def _whole(key: str, value: Any, least: int = 1) -> int:
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least:
        return int(value)
    allowed = f"a whole number, {least} or more" + (", or null for all points" if key == "data.batch_size" else "")
    raise InputError(f"{key}={value!r} is not usable: give {allowed}.")


def _clip(batch_size: int | None, n: int) -> int | None:
    if batch_size is not None and batch_size > n:
        warnings.warn(
            f"data.batch_size={batch_size} is above the {n} training points; all {n} are used in every step.",
            SpectrainWarning,
            stacklevel=3,
        )
        return None
    return batch_size
