"""What the curves of a race, its pictures and the maps of the method show."""

import numpy as np
from matplotlib.colors import to_hex

from spectrain.plots import gain_map_figure, initialisation_figure, pictures_figure, race_figure


def test_a_line_is_the_median_over_the_seeds_and_the_band_their_range() -> None:
    """Seed 1 is evaluated at other times, and read off where seed 0 was."""
    method, seed = ["soap"] * 7, [0, 0, 0, 1, 1, 2, 2]
    seconds = [0.0, 1.0, 2.0, 0.0, 2.0, 0.0, 2.0]
    value = [10.0, 20.0, 30.0, 12.0, 32.0, 8.0, 40.0]
    figure = race_figure(method, seed, seconds, seconds, value, label="PSNR, dB", target=25.0)
    axis = figure.axes[0]
    line, target = axis.lines
    np.testing.assert_allclose(line.get_xydata(), [[0, 10], [1, 22], [2, 32]])
    assert set(target.get_ydata()) == {25.0}
    band = axis.collections[0].get_paths()[0].vertices
    for x, low, high in ((0, 8, 12), (1, 20, 24), (2, 30, 40)):
        at = band[np.isclose(band[:, 0], x), 1]
        assert (at.min(), at.max()) == (low, high)


def test_an_error_is_drawn_on_a_logarithmic_axis_and_no_target_is_no_line() -> None:
    figure = race_figure(["a", "a"], [0, 0], [0, 1], [0, 5], [1, 1e-3], "l2", target=np.nan, logarithmic=True)
    assert figure.axes[0].get_yscale() == "log" and len(figure.axes[0].lines) == 1


def test_pictures_stand_four_in_a_row() -> None:
    figure = pictures_figure(list("abcde"), [np.zeros((4, 4, 1))] * 5)
    assert [axis.get_title() for axis in figure.axes if axis.images] == list("abcde")
    assert len(figure.axes) == 8


def test_the_map_shows_where_auto_switched_off() -> None:
    pair = {"network": ["mlp", "siren"], "optimizer": ["adam", "adam"], "chosen": ["sample", "none"]}
    ratio, decay, gain = np.array([4e3, 2.8]), np.array([2.0, 0.5]), np.array([8.0, -1.0])
    figure = gain_map_figure(
        **pair, ratio=ratio, decay=decay, gain=gain, auto_gain=gain + 0.5, thresholds=np.array([4, 8])
    )
    points = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert [(float(p.get_xdata()[0]), float(p.get_ydata()[0])) for p in points] == [(4e3, 8), (2.8, -1)]
    assert [to_hex(p.get_markerfacecolor()) == "#ffffff" for p in points] == [False, True]


def test_initialisations_are_bars_from_top_to_bottom() -> None:
    psnr = np.array([[30.0, 33.0], [31.0, 32.0]])
    left, right = initialisation_figure(["first", "second"], np.array([90.0, 10.0]), psnr).axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["first", "second"]
    assert list(left.get_yticks()) == [1, 0]
    widths = [bar.get_width() for bar in right.patches]
    assert widths == [30, 33, 31, 32]
