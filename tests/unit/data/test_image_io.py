"""Every kind of image file, exactly, and every unusable one as one sentence."""

import contextlib
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from spectrain.data import image_io
from spectrain.data.image_io import check_size, read_image, shipped_images, target_shape
from spectrain.errors import InputError, SpectrainWarning

GREY = np.arange(7 * 5, dtype=np.uint8).reshape(7, 5) * 7  # odd sizes, all different
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)


def unit(stored, top=255):
    return 2 * (np.asarray(stored, np.float64) / top) - 1


def save(path: Path, array, mode=None, **kwargs) -> str:
    image = array if isinstance(array, Image.Image) else Image.fromarray(np.asarray(array))
    (image if mode is None else image.convert(mode)).save(path, **kwargs)
    return str(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "ppm"])
@pytest.mark.parametrize("array", [GREY, COLOUR], ids=["grey", "colour"])
def test_lossless_formats_keep_every_value(tmp_path, suffix, array):
    image = read_image(save(tmp_path / f"x.{suffix}", array))
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, unit(array.reshape(7, 5, -1)), atol=2e-7)


def test_webp_and_jpeg(tmp_path):
    lossless = read_image(save(tmp_path / "x.webp", COLOUR, lossless=True))
    np.testing.assert_allclose(lossless, unit(COLOUR), atol=2e-7)
    smooth = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8) * 2
    jpeg = read_image(save(tmp_path / "x.jpg", smooth, quality=95))
    assert jpeg.shape == (64, 48, 1)
    assert np.abs(jpeg[:, :, 0] - unit(smooth)).max() < 0.05


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_16_bit_grey_is_exact(tmp_path, name):
    stored = np.array([[0, 1, 255], [256, 40001, 65535]], np.uint16)
    image = read_image(save(tmp_path / name, stored))
    np.testing.assert_array_equal(np.round((image[:, :, 0].astype(np.float64) + 1) / 2 * 65535), stored)


def test_tiff_with_white_stored_as_zero(tmp_path):
    for dtype, top in ((np.uint8, 255), (np.uint16, 65535)):
        stored = np.array([[0, top // 5], [top // 3, top]], dtype)
        path = save(tmp_path / "w.tif", stored, tiffinfo={262: 0})
        expected = unit(stored, top)  # Pillow inverts 8 bits when it writes, too
        np.testing.assert_allclose(read_image(path)[:, :, 0], expected if top == 255 else -expected, atol=1e-6)


def test_palette_bilevel_and_cmyk(tmp_path):
    palette = Image.fromarray(GREY // 64, "P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    expected = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]])[GREY // 64]
    np.testing.assert_allclose(read_image(save(tmp_path / "p.png", palette)), unit(expected), atol=2e-7)
    bits = GREY > 100
    np.testing.assert_array_equal(read_image(save(tmp_path / "b.png", bits)), np.where(bits, 1, -1)[:, :, None])
    cmyk = np.zeros((2, 3, 4), np.uint8)
    cmyk[:, 0, 0] = 255  # pure cyan
    image = read_image(save(tmp_path / "c.tif", Image.fromarray(cmyk, "CMYK")))
    np.testing.assert_array_equal(image[0, :2], [[-1, 1, 1], [1, 1, 1]])


@pytest.mark.parametrize(("mode", "channels"), [("LA", 1), ("RGBA", 3)])
def test_transparency_lies_over_white(tmp_path, mode, channels):
    pixels = np.zeros((1, 3, channels + 1), np.uint8)
    pixels[0, :, -1] = [255, 128, 0]  # black: opaque, half, clear
    image = read_image(save(tmp_path / "a.png", Image.fromarray(pixels, mode)))
    assert image.shape == (1, 3, channels)
    expected = np.repeat(unit([0, 127, 255])[None, :, None], channels, axis=2)
    np.testing.assert_allclose(image, expected, atol=2e-7)


def test_transparent_palette_entry_is_white(tmp_path):
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    image = read_image(save(tmp_path / "t.gif", palette, transparency=0))
    np.testing.assert_array_equal(image, [[[1, 1, 1], [-1, -1, 1]]])


def test_float_tiff(tmp_path):
    stored = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_allclose(read_image(save(tmp_path / "f.tif", stored))[:, :, 0], 2 * stored - 1, atol=2e-7)
    with pytest.warns(SpectrainWarning, match=r"from -10 to 30.*stretched"):
        stretched = read_image(save(tmp_path / "g.tif", stored * 40 - 10))
    np.testing.assert_allclose(stretched[:, :, 0], 2 * stored - 1, atol=1e-6)
    stored[1, 1] = np.nan
    with pytest.raises(InputError, match=r"^data\.path=\S+ holds NaN"):
        read_image(save(tmp_path / "n.tif", stored))
    with pytest.raises(InputError, match=r"^data\.path=\S+ holds only the value 7"):
        read_image(save(tmp_path / "c.tif", np.full((2, 2), 7, np.float32)))


def test_16_bit_colour_warns(tmp_path):
    with pytest.warns(SpectrainWarning, match="16 bit colours"):
        read_image(str(shipped_images()["chessboard_RGB"]))


@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
def test_exif_rotation_is_applied(tmp_path, name):
    upright = np.zeros((24, 16), np.uint8)
    upright[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    image = read_image(save(tmp_path / name, np.rot90(upright), exif=exif))
    assert image.shape == (24, 16, 1)
    np.testing.assert_allclose(image[:, :, 0], unit(upright), atol=0.05)


@pytest.mark.parametrize("name", ["x.gif", "x.tif", "x.webp", "x.png"])
def test_the_first_frame_of_several(tmp_path, name):
    frames = [Image.fromarray(np.full((4, 6), value, np.uint8)) for value in (255, 0)]
    path = save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
    assert read_image(path).min() > 0.98


def test_default_and_shipped_images_need_no_network(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("network used"))
    camera = read_image()
    assert camera.shape == (512, 512, 1)
    assert read_image("skimage:astronaut", 16).shape == (16, 16, 3)
    np.testing.assert_array_equal(camera, read_image("skimage:camera"))
    for file in shipped_images().values():
        Image.open(file).verify()


def test_grayscale_weighs_the_colours(tmp_path):
    image = read_image(save(tmp_path / "x.png", COLOUR), grayscale=True)
    np.testing.assert_allclose(image[:, :, 0], unit(COLOUR @ [0.2125, 0.7154, 0.0721]), atol=1e-6)
    np.testing.assert_array_equal(read_image(grayscale=True), read_image())


# --- size


def test_size_is_the_longer_side_or_exact(tmp_path):
    path = save(tmp_path / "x.png", np.zeros((40, 100), np.uint8))
    assert read_image(path, 50).shape == (20, 50, 1)
    assert read_image(path, (30, 31)).shape == (30, 31, 1)
    assert read_image(path, [30, 31]).shape == (30, 31, 1)
    assert read_image(path, 1).shape == (1, 1, 1)
    assert read_image(None, 64).shape == (64, 64, 1)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 8192))
def test_the_aspect_ratio_is_kept_to_half_a_pixel(height, width, n):
    rows, columns = target_shape((height, width), n)
    assert max(rows, columns) == n
    assert min(rows, columns) >= 1
    exact = n * min(height, width) / max(height, width)
    assert abs(min(rows, columns) - exact) <= 0.5 or (exact < 0.5 and min(rows, columns) == 1)


def test_resizing_is_antialiased_and_not_rounded(tmp_path):
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))  # period two: must vanish, not alias
    flat = read_image(save(tmp_path / "s.png", stripes), 8)
    assert np.abs(flat[:, 1:-1]).max() < 0.02
    ramp = np.tile(np.arange(64, dtype=np.uint16) * 3, (64, 1))  # 16 bit, all below one step of 8 bits
    small = read_image(save(tmp_path / "r.png", ramp), 8)
    assert len(np.unique(small)) == 8
    np.testing.assert_allclose(small[0, 1:-1, 0], unit(3 * (np.arange(1, 7) * 8 + 3.5), 65535), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0, 1, 128, 255]))
def test_a_constant_image_stays_constant(tmp_path_factory, rows, columns, value):
    path = save(tmp_path_factory.mktemp("c") / "x.png", np.full((13, 9), value, np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpectrainWarning)
        image = read_image(path, (rows, columns))
    np.testing.assert_allclose(image, np.full((rows, columns, 1), unit(value)), atol=1e-6)


def test_enlarging_warns(tmp_path):
    path = save(tmp_path / "x.png", GREY)
    with pytest.warns(SpectrainWarning, match=r"7x5 pixels.*data\.size=14.*14x10"):
        read_image(path, 14)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(path, 7)


@pytest.mark.parametrize(
    "size", [0, -1, 8193, 10**30, 2.0, float("nan"), float("inf"), True, "64", [64], [64, 64, 3], [64, 0], {}, b"ab"]
)
def test_bad_sizes(size):
    with pytest.raises(InputError, match=r"^data\.size=.*whole number from 1 to 8192"):
        check_size(size)


def test_numpy_integers_and_configured_lists_are_sizes():
    assert check_size(OmegaConf.create([5, 6])) == (5, 6)
    assert check_size(np.int64(5)) == 5
    assert check_size((np.int32(5), 6)) == (5, 6)


# --- unusable files


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"is an empty file \(0 bytes\)"),
        (b"\x89PNG\r\n\x1a\n", "is not an image|is broken"),
        (b"hello, I am text\n" * 50, "is not an image that can be read"),
        (bytes(1000), "is not an image that can be read"),
    ],
)
def test_non_images(tmp_path, content, sentence):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^data\.path=\S+x\.png ({sentence})"):
        read_image(str(path))


def test_missing_files_and_directories(tmp_path):
    save(tmp_path / "holiday.png", GREY)
    with pytest.raises(InputError, match=r"data\.path=.*does not exist \(did you mean holiday\.png\?\)"):
        read_image(str(tmp_path / "holidy.png"))
    with pytest.raises(InputError, match=r"did you mean skimage:camera"):
        read_image("camera")
    with pytest.raises(InputError, match=r"did you mean skimage:coffee.*astronaut"):
        read_image("skimage:cofee")
    with pytest.raises(InputError, match=r"data\.path=.*directory"):
        read_image(str(tmp_path))
    for path in ("", "\0", "x" * 5000, "/dev/null", "nofolder/x.png"):
        with pytest.raises(InputError, match=r"data\.path="):
            read_image(path)
    with pytest.raises(InputError, match=r"data\.path=3 is not a path"):
        read_image(3)


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path):
    path = tmp_path / "x.png"
    save(path, GREY).encode()
    path.chmod(0)
    with pytest.raises(InputError, match=r"data\.path=.*Permission denied"):
        read_image(str(path))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif"])
def test_truncated_files(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = Path(save(tmp_path / f"x.{suffix}", noise)).read_bytes()
    for share in (0.1, 0.5, 0.8):
        short = tmp_path / f"short.{suffix}"
        short.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=r"data\.path="):
            read_image(str(short))


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(["png", "jpg", "tif", "webp", "gif", "bmp"]))
def test_damaged_files_give_an_image_or_an_input_error(tmp_path_factory, data, suffix):
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray(Path(save(folder / f"x.{suffix}", COLOUR)).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "y").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(InputError):  # any other exception is a traceback for a person
            image = read_image(str(folder / "y"), 8)
            assert np.isfinite(image).all()
            assert np.abs(image).max() <= 1


def test_decompression_bombs(tmp_path, monkeypatch):
    path = save(tmp_path / "x.png", np.zeros((100, 100), np.uint8))
    monkeypatch.setattr(image_io, "MAX_PIXELS", 9999)
    with pytest.raises(InputError, match=r"data\.path=.*more than 9999 pixels"):
        read_image(path)
    huge = tmp_path / "huge.ppm"
    huge.write_bytes(b"P5 40000 40000 255\n")
    with pytest.raises(InputError, match="pixels"):
        read_image(str(huge))


def test_formats_that_run_programs_are_refused(tmp_path):
    path = save(tmp_path / "x.eps", COLOUR)
    with pytest.raises(InputError, match=r"not an image that can be read; allowed are PNG"):
        read_image(path)
