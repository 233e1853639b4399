"""The figures of the theory show the numbers they are given."""

import numpy as np
import pytest

from spectrain.plots import decay_figure, maps_figure, rate_figure


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


def test_the_exponent_in_the_legend_is_that_of_the_numbers() -> None:
    sizes = np.array([10, 100, 1000])
    figure = rate_figure(sizes, np.stack([sizes**-0.5, 3.0 / sizes]), ["slow", "fast"], "n", "error")
    assert labels(figure) == ["slow: exponent -0.50", "fast: exponent -1.00"]
    assert figure.axes[0].get_xlabel() == "n"
