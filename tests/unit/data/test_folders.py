"""A folder of pictures as frames or as classes: order, shapes, and one sentence for what cannot be used."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spectrain.data import TableDataModule, folders
from spectrain.data.folders import read_classes, read_frames
from spectrain.errors import InputError, SpectrainWarning


def save(path: Path, value: int, shape: tuple[int, ...] = (4, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)


def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name, value in (("f10.png", 255), ("f9.png", 128), ("F1.PNG", 0), (".hidden.png", 7)):
        save(tmp_path / name, value)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "11").mkdir()
    film = read_frames(str(tmp_path))
    assert film.shape == (3, 4, 6, 1) and film.dtype == np.float32
    np.testing.assert_allclose(film[:, 0, 0, 0], [-1, 2 * 128 / 255 - 1, 1], atol=1e-6)
    assert read_frames(str(tmp_path), 3, frames=2).shape == (2, 2, 3, 1)


def test_what_one_frame_warns_of_is_said_once(tmp_path: Path) -> None:
    for k in range(3):
        save(tmp_path / f"{k}.png", k)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_frames(str(tmp_path), 12)
    assert sum("enlarges" in str(w.message) for w in caught) == 1


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("b.png", (4, 5), "b.png has 5x4 pixels in grey and a.png 6x4 pixels in grey"),
        ("b.png", (4, 6, 3), "b.png has 6x4 pixels in colour and a.png 6x4 pixels in grey"),
    ],
)
def test_frames_of_two_shapes(tmp_path: Path, name: str, shape: tuple[int, ...], said: str) -> None:
    save(tmp_path / "a.png", 0)
    save(tmp_path / name, 0, shape)
    with pytest.raises(InputError, match=re.escape(said)):
        read_frames(str(tmp_path))
    if len(shape) == 3:
        assert read_frames(str(tmp_path), grayscale=True).shape == (2, 4, 6, 1)


def test_folders_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "film" / "a.png", 0)
    save(tmp_path / "film" / "b.png", 0)
    (tmp_path / "film" / "c.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    for path, said in (
        ("gone", "gone does not exist: data=frames takes a folder"),
        ("film/a.png", "film/a.png is a file: data=frames takes a folder of pictures, and data=image one"),
        ("empty", "a folder without pictures (.png, .jpg"),
        ("film", "c.png is not an image"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            read_frames(str(tmp_path / path))
    with pytest.raises(InputError, match=r"data\.path=3 is not a path"):
        read_frames(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"data\.frames=4 is above the 3 pictures"):
        read_frames(str(tmp_path / "film"), frames=4)
    monkeypatch.setattr(folders, "MAX_VALUES", 50)
    with pytest.raises(InputError, match=r"have 72 values, more than 50; give data\.frames or a smaller data\.size"):
        read_frames(str(tmp_path / "film"))
    assert read_frames(str(tmp_path / "film"), frames=2).size == 48


def make_classes(folder: Path, each: int = 6) -> None:
    for name, value in (("night", 10), ("day", 240)):
        for k in range(each):
            save(folder / name / f"{k}.png", value + k)


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    make_classes(tmp_path)
    (tmp_path / "notes").mkdir()
    x, labels = read_classes(str(tmp_path))
    assert x.shape == (12, 24) and list(labels) == ["day"] * 6 + ["night"] * 6
    assert (x[:6] > 0).all() and (x[6:] < 0).all()
    data = TableDataModule(str(tmp_path), standardize="all")
    assert data.classes and list(data.labels) == ["day", "night"] and data.train_x.shape == (8, 24)
    bright = data.points.mean(1) > 0
    assert (bright == (data.values[:, 0] == 1)).all()


def test_classes_that_cannot_be_used(tmp_path: Path) -> None:
    make_classes(tmp_path)
    with pytest.raises(InputError, match=r"data\.task=regression"):
        TableDataModule(str(tmp_path), task="regression")
    with pytest.warns(SpectrainWarning, match="data.target=day has no effect"):
        TableDataModule(str(tmp_path), target="day")
    save(tmp_path / "day" / "z.png", 0, (9, 9))
    with pytest.raises(InputError, match=r"z\.png has 9x9 pixels in grey and 0\.png 6x4"):
        read_classes(str(tmp_path))
    with pytest.raises(InputError, match="has 0 sub-folders with pictures"):
        read_classes(str(tmp_path / "day"))
