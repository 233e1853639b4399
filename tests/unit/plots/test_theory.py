"""The figures of the theory show the numbers they are given."""

import numpy as np
import pytest

from spectrain.plots import (
    batch_size_figure,
    bias_figure,
    decay_figure,
    learning_steps_figure,
    maps_figure,
    prediction_figure,
    rate_figure,
    ring_names,
    strength_figure,
)


def labels(figure: object) -> list[str]:
    owners = [*figure.axes, figure]  # type: ignore[attr-defined]
    legends = [owner.get_legend() for owner in owners if hasattr(owner, "get_legend") and owner.get_legend()]
    return [text.get_text() for legend in [*legends, *figure.legends] for text in legend.get_texts()]  # type: ignore[attr-defined]


def test_every_map_is_scaled_to_its_largest_mode_and_named() -> None:
    eigenvalues = np.array([4.0, 2.0, 1.0])
    figure = maps_figure(eigenvalues, np.array([[0.25, 0.5, 1.0], [2.0, 1.0, 1.0]]), ["flat", "raised"])
    lines = [line.get_ydata().tolist() for line in figure.axes[0].lines]
    assert lines == [[1, 0.5, 0.25], [1, 1, 1], [1, 0.25, 0.125]]
    assert labels(figure) == ["identity", "flat", "raised"]


def test_theory_is_a_line_and_training_are_dots() -> None:
    predicted = np.array([[[1.0, 1.0], [0.5, 0.9]]])
    figure = decay_figure(np.array([1, 10]), predicted, predicted * 0.9, ["slow", "fast"], ["one panel"])
    lines = figure.axes[0].lines
    assert [line.get_marker() for line in lines] == ["None", "o", "None", "o"]
    assert lines[0].get_ydata().tolist() == [1, 0.5]
    assert lines[1].get_ydata().tolist() == pytest.approx([0.9, 0.45])
    assert figure.axes[0].get_title() == "one panel"
    assert labels(figure) == ["slow", "fast"]


def test_four_panels_stand_in_two_rows() -> None:
    predicted = np.full((4, 2, 1), 0.5)
    figure = decay_figure(np.array([1, 10]), predicted, predicted, ["slow"], ["a", "b", "c", "d"])
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c", "d"]
    assert [axis.get_subplotspec().rowspan.start for axis in figure.axes] == [0, 0, 1, 1]
    assert [bool(axis.get_ylabel()) for axis in figure.axes] == [True, False, True, False]


def test_kinds_have_colours_and_suggestions_rings() -> None:
    values = np.array([0.1, 0.2, 0.4])
    figure = prediction_figure(values, 2 * values, ["tables", "images", "tables"], np.array([[0.1, 0.2]]))
    tables, images, rings, diagonal = (line.get_xydata().tolist() for line in figure.axes[0].lines)
    assert tables == [[0.1, 0.2], [0.4, 0.8]]
    assert images == [[0.2, 0.4]]
    assert rings == [[0.1, 0.2]]
    assert diagonal == [[0.1, 0.1], [0.8, 0.8]]
    assert labels(figure) == ["tables", "images", "suggested"]


def test_the_exponent_in_the_legend_is_that_of_the_numbers() -> None:
    sizes = np.array([10, 100, 1000])
    figure = rate_figure(sizes, np.stack([sizes**-0.5, 3.0 / sizes]), ["slow", "fast"], "n", "error")
    assert labels(figure) == ["slow: exponent -0.50", "fast: exponent -1.00"]
    assert figure.axes[0].get_xlabel() == "n"


def test_steps_of_every_method_lie_over_their_theory() -> None:
    number = np.array([[1.0, 2.0, 4.0], [1.0, 2.0, np.nan]])
    predicted = np.stack([np.stack([10 * number[0] ** 2, np.ones(3)]), np.stack([10 * number[1] ** 3, np.ones(3)])])
    arguments = (["plain", "ours"], ["Circle", "Sphere"], ["frequency k", "degree l"], [2, 3])
    figure = learning_steps_figure(number, predicted, 2 * predicted, *arguments)
    circle = [line.get_ydata().tolist() for line in figure.axes[0].lines]
    assert circle == [[10, 40, 160], [10, 40, 160], [20, 80, 320], [1, 1, 1], [2, 2, 2]]  # the first is the slope
    assert figure.axes[1].texts[0].get_text() == "\u221d l\u00b3"
    assert labels(figure) == ["plain: theory", "plain: network", "ours: theory", "ours: network"]


def test_strengths_have_a_line_and_dots_for_each_noise() -> None:
    error = np.arange(1.0, 13.0).reshape(1, 2, 2, 3)
    figure = strength_figure(np.array([0, 0.5, 1]), error, 2 * error, np.array([0, 0.1]), ["now"], ["near", "far"])
    far = [line.get_ydata() for line in figure.axes[1].lines[:4]]
    assert [y.tolist() for y in far] == [[14, 16, 18], [7, 8, 9], [20, 22, 24], [10, 11, 12]]
    assert [axis.get_title() for axis in figure.axes] == ["near, now", "far, now"]


def test_the_gain_is_over_the_first_method_and_unlearned_batches_are_gaps() -> None:
    measured = np.array([[100.0, 90.0], [50.0, 9.0], [np.nan, 10.0]])
    figure = batch_size_figure(np.array([1, 8]), measured[:2], measured, np.array([2.0, 9.0]), ["plain", "P", "S"])
    gain = [line.get_ydata() for line in figure.axes[1].lines if line.get_marker() in ("s", "^")]
    np.testing.assert_array_equal(gain, [[2, 10], [np.nan, 9]])
    assert [line.get_xdata()[0] for line in figure.axes[1].lines[:2]] == [2, 9]


def test_bands_stand_above_rings_of_frequency() -> None:
    values = np.array([[[1.0, 1.0], [0.1, 0.9]], [[1.0, 1.0], [0.2, 0.2]]])
    figure = bias_figure(np.array([0, 10]), values, values / 2, np.array([4]), np.array([0, 3]), ["plain", "ours"])
    assert [axis.get_title() for axis in figure.axes] == ["plain", "ours", "", ""]
    assert figure.axes[1].lines[1].get_ydata().tolist() == [1, 0.2]
    assert figure.axes[2].lines[0].get_ydata().tolist() == [0.5, 0.05]
    assert ring_names([0, 3]) == ["frequencies 0\u20132", "3 and above"]
