"""Figures of signals and tables are drawn again from the numbers that are saved with them."""

import numpy as np
import pytest

from spectrain.plots import (
    frequencies_figure,
    load_arrays,
    parts_figure,
    quality_figure,
    save_figure,
    signal_figure,
    trained_figure,
)

RNG = np.random.default_rng(0)
RUNS = ["modified spectrum"] * 3 + ["without"] * 3
STEPS, SECONDS = [0, 5, 10] * 2, [0.0, 1, 2] * 2
EXAMPLES = {
    "signal": (
        signal_figure,
        {
            "x": np.linspace(-1, 1, 16),
            "target": RNG.normal(size=(16, 2)),
            "fit": RNG.normal(size=(16, 2)),
            "signal_energy": RNG.uniform(size=9),
            "residual_energy": np.zeros(9),
        },
    ),
    "frequencies": (
        frequencies_figure,
        {"step": STEPS, "error": RNG.uniform(size=(6, 2)), "bands": [[1, 1], [2, 3]], "run": RUNS},
    ),
    "parts": (
        parts_figure,
        {
            "step": STEPS,
            "seconds": SECONDS,
            "run": RUNS,
            "label": "RMSE",
            "reference": 0.3,
            "train": RNG.uniform(size=6),
            "validation": RNG.uniform(size=6),
        },
    ),
    "quality": (
        quality_figure,
        {"step": STEPS, "seconds": SECONDS, "value": np.arange(6.0), "run": RUNS, "label": "SNR (dB)"},
    ),
    "trained": (
        trained_figure,
        {
            "trained": RNG.uniform(-1, 1, (4, 4, 3)),
            "target": RNG.uniform(-1, 1, (8, 8, 3)),
            "reconstruction": np.zeros((8, 8, 3)),
        },
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_drawn_again(tmp_path, name):
    draw, arrays = EXAMPLES[name]
    first = draw(**arrays)
    save_figure(first, tmp_path / name, arrays)
    again = draw(**load_arrays(tmp_path / name))
    for one, other in zip(first.axes, again.axes, strict=True):
        assert one.get_ylabel() == other.get_ylabel()
        for a, b in zip(one.lines, other.lines, strict=True):
            np.testing.assert_array_equal(a.get_xydata(), b.get_xydata())


def test_every_run_has_its_panel_or_colour():
    figure = frequencies_figure(**EXAMPLES["frequencies"][1])
    assert [axis.get_title() for axis in figure.axes] == ["modified spectrum", "without"]
    assert [len(axis.lines) for axis in figure.axes] == [2, 2]
    parts = parts_figure(**EXAMPLES["parts"][1]).axes[0]
    assert len(parts.lines) == 5 and parts.get_ylabel() == "RMSE"
    assert parts.lines[0].get_color() == parts.lines[1].get_color() != parts.lines[2].get_color()
