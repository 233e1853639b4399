"""Every figure shows the numbers it was given, and can be drawn again from the file beside it."""

import math

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from spectrain.plots import (
    band_energy_figure,
    band_names,
    load_arrays,
    psnr_figure,
    reconstruction_figure,
    save_figure,
    spectrum_figure,
)
from spectrain.plots.figures import decibels

RNG = np.random.default_rng(0)
MODES = np.arange(1, 41)
STEPS = np.array([0, 1, 10, 100])
EXAMPLES = {
    "grey": (reconstruction_figure, {"target": RNG.uniform(-1, 1, (8, 6, 1)), "reconstruction": np.zeros((8, 6, 1))}),
    "colour": (reconstruction_figure, {"target": RNG.uniform(-1, 1, (4, 9, 3)), "reconstruction": np.zeros((4, 9, 3))}),
    "spectrum": (
        spectrum_figure,
        {"eigenvalues": 1.0 / MODES**2, "ratio": np.minimum(1, MODES / 20), "resolved": 30, "noise_floor": 1e-3},
    ),
    "psnr": (
        psnr_figure,
        {
            "step": [0, 9, 0, 9],
            "seconds": [0.0, 1, 0, 2],
            "psnr": [5.0, 9, 5, 20],
            "run": ["SOAP", "SOAP"] + ["MSK"] * 2,
        },
    ),
    "bands": (
        band_energy_figure,
        {"step": STEPS, "energy": np.exp(-np.outer(STEPS, [1, 0.1, 0.01])) + 1e-9, "last_mode": [4, 16]},
    ),
}


def texts(figure):
    found = [t.get_text() for t in figure.findobj(matplotlib.text.Text)]
    return " | ".join(t for t in found if t)


def pixels(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_figure_is_drawn_again_from_its_numbers_alone(tmp_path, name):
    draw, arrays = EXAMPLES[name]
    figure = draw(**arrays)
    paths = save_figure(figure, tmp_path / "new" / "v1.5 final", {**arrays, "unused": None})
    assert [p.name for p in paths] == [f"v1.5 final.{suffix}" for suffix in ("png", "pdf", "npz")]
    assert all(p.stat().st_size > 500 for p in paths)
    again = draw(**load_arrays(tmp_path / "new" / "v1.5 final"))
    assert isinstance(again, Figure)
    np.testing.assert_array_equal(pixels(draw(**arrays)), pixels(again))


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_text_is_tiny_or_cut_off(name):
    draw, arrays = EXAMPLES[name]
    figure = draw(**arrays)
    pixels(figure)
    width, height = figure.get_size_inches() * figure.dpi
    shown = [t for axis in figure.axes for t in (axis.title, axis.xaxis.label, axis.yaxis.label)]
    legends = figure.legends + [axis.get_legend() for axis in figure.axes if axis.get_legend()]
    shown += [t for legend in legends for t in legend.get_texts()]
    for text in filter(matplotlib.text.Text.get_text, shown):
        assert text.get_fontsize() >= 8, text
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, (text, box)


@pytest.mark.parametrize("name", ["spectrum", "psnr", "bands"])
def test_every_axis_is_labelled(name):
    draw, arrays = EXAMPLES[name]
    for number, axis in enumerate(draw(**arrays).axes):
        assert axis.get_xlabel()
        assert axis.get_ylabel() or (name == "psnr" and number == 1)  # shares the first one's dB axis


def test_reconstruction_shows_the_decibels_of_clamped_values():
    target = np.zeros((5, 5, 3))
    figure = reconstruction_figure(target, target + 0.2)
    assert "20.00 dB" in texts(figure)
    figure = reconstruction_figure(np.ones((5, 5, 1)), np.full((5, 5, 1), 9.0))
    assert "exact" in texts(figure)
    drawn = reconstruction_figure(target, target + np.array([0.1, 0, 0.3])).axes[2].images[0].get_array()
    np.testing.assert_allclose(drawn, math.sqrt((0.01 + 0.09) / 3))
    assert decibels(4) == "0.00 dB"


def test_images_keep_their_values():
    arrays = EXAMPLES["grey"][1]
    grey = reconstruction_figure(**arrays).axes[0].images[0]
    np.testing.assert_allclose(grey.get_array(), (arrays["target"][:, :, 0] + 1) / 2)
    assert grey.get_clim() == (0, 1)
    colour = reconstruction_figure(**EXAMPLES["colour"][1]).axes[0].images[0]
    assert colour.get_array().shape == (4, 9, 3)


def test_the_reconstruction_of_a_diverged_run_is_still_drawn():
    for bad in (np.nan, np.inf):
        pixels(reconstruction_figure(np.zeros((4, 4, 1)), np.full((4, 4, 1), bad)))


def test_spectrum_curves_and_condition_numbers():
    figure = spectrum_figure(**EXAMPLES["spectrum"][1])
    before, after, unresolved = figure.axes[0].lines[:3]
    np.testing.assert_allclose(before.get_ydata(), 1.0 / MODES[:30] ** 2)
    np.testing.assert_allclose(after.get_ydata(), np.minimum(1, MODES / 20)[:30] / MODES[:30] ** 2)
    np.testing.assert_array_equal(unresolved.get_xdata(), MODES[30:])
    assert "before: λ, condition number 900" in texts(figure)
    assert "after: g(λ), condition number 45" in texts(figure)  # (1/20) over 1/900
    assert "noise floor" in texts(figure)
    assert "noise floor" not in texts(spectrum_figure(np.array([1, 0.1]), np.ones(2), 2, 1e-9))
    assert "noise floor" in texts(spectrum_figure(np.array([1, 0.1]), np.ones(2), 2, 0.05))
    assert (figure.axes[0].get_xscale(), figure.axes[0].get_yscale()) == ("log", "log")


@pytest.mark.parametrize("resolved", [None, 0, 1, 3])
def test_spectra_of_few_modes(resolved):
    pixels(spectrum_figure(np.array([1.0, 0.1, -1e-20]), np.ones(3), resolved if resolved is not None else 2))
    pixels(spectrum_figure(np.ones(1), np.ones(1)))


def test_psnr_has_a_line_for_each_run_against_steps_and_time():
    steps, time = psnr_figure(**EXAMPLES["psnr"][1]).axes
    assert [line.get_label() for line in steps.lines] == ["SOAP", "MSK"]
    np.testing.assert_array_equal(steps.lines[1].get_xydata(), [[0, 5], [9, 20]])
    np.testing.assert_array_equal(time.lines[1].get_xydata(), [[0, 5], [2, 20]])
    single = psnr_figure(np.array([0, 1]), np.array([0.0, 1]), np.array([3.0, np.inf]))
    pixels(single)
    assert single.axes[0].get_legend() is None


def test_bands_relative_to_the_first_known_value():
    energy = np.array([[np.nan, 4.0], [2.0, 0.0], [1.0, 1.0]])
    left, right = band_energy_figure(np.array([0, 5, 10]), energy, [4]).axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), [np.nan, 2, 1])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [np.nan, 1, 0.5])
    np.testing.assert_allclose(right.lines[1].get_ydata(), [1, np.nan, 0.25])
    with pytest.raises(ValueError, match=r"energy \(3, 2\) must be \[steps, bands\] = \(3, 3\)"):
        band_energy_figure(np.array([0, 5, 10]), energy, [4, 16])


def test_band_names():
    assert band_names([1, 4, 16]) == ["mode 1", "modes 2–4", "modes 5–16", "beyond 16"]


def test_only_plain_numbers_and_text_are_saved(tmp_path):
    with pytest.raises(TypeError, match="'x'"):
        save_figure(Figure(), tmp_path / "x", {"x": {"a": 1}})
    assert not list(tmp_path.iterdir())


def test_saving_twice_gives_the_same_bytes(tmp_path):
    draw, arrays = EXAMPLES["psnr"]
    for name in "ab":
        save_figure(draw(**arrays), tmp_path / name, arrays)
    for suffix in ("png", "pdf"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_matplotlib_is_left_as_it_was():
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        before = dict(matplotlib.rcParams)
        for draw, arrays in EXAMPLES.values():
            draw(**arrays)
        assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []  # nothing for a long run to pile up
