"""A film as points: coordinates, held-out frames, figures, and what an evaluation writes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from spectrain import plots
from spectrain.data import FramesDataModule, ImageDataModule
from spectrain.errors import InputError
from spectrain.metrics import ImageMetrics


def write_film(folder: Path, count: int = 5) -> str:
    """Frame k is k grey levels brighter; every pixel has a value of its own."""
    folder.mkdir(exist_ok=True)
    for k in range(count):
        Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6) * 5 + 20 * k).save(folder / f"{k}.png")
    return str(folder)


def test_points_are_time_row_column(tmp_path: Path) -> None:
    data = FramesDataModule(write_film(tmp_path), None)
    assert data.film.shape == (5, 4, 6, 1) and data.points.shape == (120, 3) and data.out_features == 1
    assert data.grid_shape is None
    t, row, column = (3, 2, 4)
    at = (t * 4 + row) * 6 + column
    expected = torch.tensor([-1 + 2 * t / 4, -1 + 2 * row / 3, -1 + 2 * column / 5])
    torch.testing.assert_close(data.points[at], expected)
    assert data.values[at] == data.film[t, row, column]
    torch.testing.assert_close(data.points[:24, 1:], ImageDataModule(str(tmp_path / "0.png"), None).points)


def test_every_other_frame_is_held_out(tmp_path: Path) -> None:
    data = FramesDataModule(write_film(tmp_path), None, holdout=True)
    assert sorted({float(t) for t in data.train_x[:, 0]}) == [-1, 0, 1] and len(data.train_x) == 72
    metrics = data.metrics()
    prediction = data.values.clone()
    prediction[24:48] += 0.2  # the second frame, held out
    metrics.update(prediction)
    found = metrics.compute()
    held_mse = 0.2**2 / 2  # of two held-out frames one is wrong
    assert found["psnr_heldout"].item() == pytest.approx(10 * np.log10(4 / held_mse), abs=1e-3)
    assert found["psnr"].item() == pytest.approx(10 * np.log10(4 / (0.2**2 / 5)), abs=1e-3)


def test_the_ssim_of_a_film_is_the_mean_over_its_frames() -> None:
    film, found = torch.rand(3, 16, 12, 3) * 2 - 1, torch.rand(3, 16, 12, 3) * 2 - 1
    metrics = ImageMetrics(film)
    metrics.update(found.flatten(0, 2))
    each = []
    for target, picture in zip(film, found, strict=True):
        one = ImageMetrics(target)
        one.update(picture.flatten(0, 1))
        each.append(float(one.compute()["ssim"]))
    assert float(metrics.compute()["ssim"]) == pytest.approx(np.mean(each), abs=1e-5)


def test_without_a_folder_a_view_moves_over_a_photograph() -> None:
    data = FramesDataModule(size=8, frames=3)
    assert data.film.shape == (3, 8, 8, 1)
    assert not torch.equal(data.film[0], data.film[1])
    assert len(FramesDataModule(size=16).film) == 12 and len(FramesDataModule(size=8).film) == 9


@pytest.mark.parametrize(("frames", "holdout"), [(1, False), (2, True)])
def test_too_few_frames(tmp_path: Path, frames: int, holdout: bool) -> None:
    with pytest.raises(InputError, match=f"{frames} frames?; give {frames + 1} or more"):
        FramesDataModule(write_film(tmp_path), frames=frames, holdout=holdout)


def test_frames_must_be_a_number() -> None:
    with pytest.raises(InputError, match=r"data\.frames=0"):
        FramesDataModule(frames=0)


def test_another_size_covers_the_same_places(tmp_path: Path) -> None:
    data = FramesDataModule(write_film(tmp_path), None)
    points, metrics, words = data.evaluation(3)
    assert metrics.target.shape == (5, 2, 3, 1) and len(points) == 30 and words == "in 5 frames of 3 x 2 pixels"
    picture, _, _ = ImageDataModule(str(tmp_path / "0.png"), None).evaluation(3)
    torch.testing.assert_close(points[:6, 1:], picture)
    assert float(points[-1, 0]) == 1


def test_an_evaluation_writes_frames_and_a_film(tmp_path: Path) -> None:
    data = FramesDataModule(write_film(tmp_path / "film"), None, holdout=True)
    metrics = data.metrics()
    metrics.update(data.values)
    data.export(tmp_path, metrics)
    assert sorted(p.name for p in (tmp_path / "frames").iterdir()) == [f"{k:04d}.png" for k in range(1, 6)]
    written = np.asarray(Image.open(tmp_path / "frames" / "0003.png"))
    assert np.array_equal(written, np.asarray(Image.open(tmp_path / "film" / "2.png")))
    with Image.open(tmp_path / "reconstruction.gif") as film:
        assert [frame.size for frame in ImageSequence.Iterator(film)] == [(12, 4)] * 5
    arrays = plots.load_arrays(tmp_path / "frames.npz")
    assert list(arrays["number"]) == [1, 2, 3, 4, 5] and list(arrays["heldout"]) == [False, True] * 2 + [False]
    figure = plots.frames_figure(**arrays)
    assert figure.axes[0].get_title() == "1: exact" and len(figure.axes) == 11
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()] == ["trained on", "held out"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": (16, 32)}, "square"),
        ({"size": 8, "frames": 40}, "9 views"),
        ({"size": 8, "frames": 1}, "data.frames=1"),
    ],
)
def test_what_the_film_without_a_folder_has_not(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        FramesDataModule(**given)


def test_frames_that_are_held_out_are_so_at_another_size() -> None:
    mask = FramesDataModule(size=12, holdout=True).evaluation(20)[1].heldout_mask
    assert mask is not None and mask.flatten(1).all(1).tolist() == [n % 2 == 1 for n in range(len(mask))]
