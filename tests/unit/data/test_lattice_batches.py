"""Batches that are lattices of a picture's pixels."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrain.data import ImageDataModule, coordinate_grid
from spectrain.data.batches import LatticeBatches, lattice_size
from spectrain.errors import InputError, SpectrainWarning


def batches(shape: tuple[int, int], stride: int, start: int = 0, shard: tuple[int, int] = (0, 1)) -> LatticeBatches:
    x = coordinate_grid(*shape)
    return LatticeBatches(x, x[:, :1], shape, stride, 0, lambda: start, shard)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(0, 1000))
def test_a_batch_is_every_sth_row_and_column(height: int, width: int, stride: int, t: int) -> None:
    stride = min(stride, height, width)
    rows = batches((height, width), stride).rows(t).numpy()
    down, along = rows.reshape(height // stride, width // stride) // width, rows.reshape(height // stride, -1) % width
    assert (np.diff(down, axis=0) == stride).all() and (np.diff(down, axis=1) == 0).all()
    assert (np.diff(along, axis=1) == stride).all() and (np.diff(along, axis=0) == 0).all()
    assert len(rows) == lattice_size((height, width), stride) and rows.max() < height * width


@pytest.mark.parametrize("shape", [(8, 8), (7, 11)])
def test_every_pixel_has_its_turn(shape: tuple[int, int]) -> None:
    loader = batches(shape, 3)
    seen = {int(row) for t in range(200) for row in loader.rows(t)}
    assert seen == set(range(shape[0] * shape[1]))


def test_a_run_that_goes_on_and_ranks_see_the_same_batches() -> None:
    whole = list(itertools.islice(batches((9, 6), 2), 5))
    later = list(itertools.islice(batches((9, 6), 2, start=3), 2))
    for (x, y, index), (x2, y2, index2) in zip(whole[3:], later, strict=True):
        assert torch.equal(index, index2) and torch.equal(x, x2) and torch.equal(y, y2)
    shares = [next(iter(batches((9, 6), 2, shard=(rank, 2))))[2] for rank in (0, 1)]
    assert sorted(torch.cat(shares).tolist()) == sorted(whole[0][2].tolist())


def test_the_densest_lattice_within_the_batch_size() -> None:
    module = ImageDataModule(size=16, batch_size=64, batches="lattice")
    x, y, index = next(iter(module.train_dataloader()))
    assert module.stride == 2 and module.batch_size == len(x) == 64
    assert torch.equal(x, module.train_x[index]) and torch.equal(y, module.train_y[index])
    with pytest.warns(SpectrainWarning, match="rows and columns 3 apart make 25 pixels"):
        assert ImageDataModule(size=16, batch_size=50, batches="lattice").batch_size == 25
    odd = ImageDataModule(
        size=17, batch_size=64, batches="lattice"
    )  # 17 // 2 = 8: the last row and column are left over
    assert (odd.stride, odd.batch_size) == (2, 64)
    small = ImageDataModule(size=16, batch_size=16, batches="lattice", downsample=2)
    assert small.grid_shape == (8, 8) and small.stride == 2
    with pytest.warns(SpectrainWarning, match="all 64 are used"):
        assert ImageDataModule(size=8, batch_size=100, batches="lattice").stride is None


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"batches": "grid"}, "random, lattice"),
        ({"batches": "lattice"}, "data.batch_size"),
        ({"batches": "lattice", "batch_size": 8, "holdout": True}, "data.holdout=false"),
        ({"batches": "lattice", "batch_size": 2, "size": (2, 30)}, "less than any lattice on 2 x 30"),
    ],
)
def test_what_cannot_be_used(given_: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ImageDataModule(**{"size": 8, **given_})
