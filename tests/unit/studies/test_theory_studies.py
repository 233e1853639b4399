"""The studies of the theory: a few steps of each, what they refuse, and (slow) what they claim."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spectrain import InputError
from spectrain.studies import (
    BatchSizeStudy,
    Cells,
    CircleStudy,
    Findings,
    GeneralisationStudy,
    SameSolutionStudy,
    SpectralBiasStudy,
    WidthStudy,
)

TINY: list[tuple[Any, dict[str, Any], int]] = [
    (
        CircleStudy,
        {"width": 64, "frequencies": [1, 2], "points": 20, "degrees": [1], "sphere_points": 30, "most_steps": 40},
        6,
    ),
    (WidthStudy, {"repeats": 1, "widths": [8, 16], "most_steps": 20}, 4),
    (SameSolutionStudy, {"repeats": 1, "widths": [8, 16], "most_steps": 20}, 8),
    (
        GeneralisationStudy,
        {
            "repeats": 1,
            "width": 32,
            "strengths": [-0.5, 0, 1],
            "noises": [0, 0.3],
            "points": 12,
            "rank": 4,
            "steps": [1, 5],
            "fixed": 5,
        },
        4,
    ),
    (SpectralBiasStudy, {"picture": 17, "width": 16, "rank": 8, "steps": 5}, 2),
    (BatchSizeStudy, {"repeats": 1, "width": 32, "points": 12, "rank": 4, "batch_sizes": [1, 12], "most_steps": 8}, 7),
]


def run(study: Any, folder: Path) -> tuple[Findings, Cells]:
    cells = Cells(folder, say=lambda _: None)
    return study.run(cells), cells


@pytest.mark.parametrize(("kind", "settings", "parts"), TINY, ids=lambda value: getattr(value, "__name__", ""))
def test_a_tiny_study_runs_is_drawn_and_goes_on_from_its_cells(
    kind: Any, settings: dict[str, Any], parts: int, tmp_path: Path
) -> None:
    found, cells = run(kind(**settings), tmp_path)
    assert cells.total == parts == len(list(tmp_path.glob("*.npz")))
    assert all(value is None or isinstance(value, (int, float, str)) for value in found.headline.values())
    for draw, arrays in found.figures.values():
        assert draw(**arrays).axes
    for name, write in found.animations.items():
        write(tmp_path / name)
        with Image.open(tmp_path / name) as movie:
            assert movie.format == "GIF"
            assert movie.n_frames > 5
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    again, _ = run(kind(**settings), tmp_path)
    assert repr(again.headline) == repr(found.headline)  # nan is not equal to itself
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (CircleStudy, {"points": 20}, r"study.points=20 .* at least 40"),
        (CircleStudy, {"tolerance": 0.9}, r"study.tolerance=0.9 .* at most 0.5"),
        (CircleStudy, {"height": 0}, r"study.height=0 .* above 0"),
        (WidthStudy, {"widths": [64]}, r"study.widths=\[64\] .* at least two widths"),
        (SameSolutionStudy, {"points": 4}, r"study.points=4 .* at least 7"),
        (GeneralisationStudy, {"fixed": 101}, r"study.fixed=101 must be one of study.steps"),
        (GeneralisationStudy, {"strengths": [2]}, r"study.strengths=\[2\] .* at most 1"),
        (GeneralisationStudy, {"noises": 0.1}, r"study.noises=0.1 must be a list"),
        (SpectralBiasStudy, {"picture": 17, "rank": 144}, r"study.rank=144 .* too few pixels"),
        (BatchSizeStudy, {"batch_sizes": [512]}, r"study.batch_sizes=\[512\] .* up to study.points=256"),
    ],
)
def test_bad_settings_are_refused_by_name(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**settings)


@pytest.mark.slow
def test_frequency_12_takes_100_times_fewer_steps_and_all_frequencies_about_as_many(tmp_path: Path) -> None:
    study = CircleStudy(frequencies=[2, 4, 12], degrees=[1, 2, 4, 6], most_steps_on_sphere=400)
    found, _ = run(study, tmp_path)
    assert found.headline["circle_gradient_descent_is"] == "measured"
    assert found.headline["circle_fewer_steps_at_12"] >= 100
    assert found.headline["circle_most_with_S"] <= 10
    assert found.headline["sphere_most_with_S"] <= 10
    arrays = found.figures["circle"][1]
    predicted, measured = arrays["predicted"][:, 0], arrays["measured"][:, 0]
    known = np.isfinite(measured)
    assert np.all(
        np.abs(np.log2(measured[known] / predicted[known])) < 1.2
    )  # at 12 the network takes 1.7 times as many
    assert math.log(predicted[0, 2] / predicted[0, 1], 3) == pytest.approx(2, abs=0.15)


@pytest.mark.slow
def test_networks_approach_their_kernel_regression_with_and_without_a_preconditioner(tmp_path: Path) -> None:
    found, _ = run(WidthStudy(repeats=4, widths=[64, 512, 4096]), tmp_path)
    for name in ("slope_own_kernel", "slope_own_kernel_with_S"):
        assert found.headline[name] < -0.4
    for name in ("slope_limit_kernel", "slope_limit_kernel_with_S"):
        assert -0.8 < found.headline[name] < -0.25
    assert found.headline["distance_at_largest_width_with_S"] < 0.02


@pytest.mark.slow
def test_every_preconditioner_ends_in_the_same_predictor(tmp_path: Path) -> None:
    found, _ = run(SameSolutionStudy(repeats=2, widths=[64, 1024], most_steps=40_000), tmp_path)
    assert found.headline["largest_distance_at_largest_width"] < 0.01
    for name in ("slope_flatten", "slope_power", "slope_random"):
        assert found.headline[name] < -0.25


@pytest.mark.slow
def test_flattening_costs_on_noisy_aligned_targets_and_pays_on_misaligned_ones_as_predicted(tmp_path: Path) -> None:
    study = GeneralisationStudy(repeats=2, strengths=[0.0, 1.0], noises=[0.3], steps=[1, 3, 10, 30, 100], fixed=100)
    found, _ = run(study, tmp_path)
    arrays = found.figures["generalisation"][1]
    for error in (arrays["theory"], arrays["network"]):  # [best time or fixed, target, noise, strength]
        assert error[0, 0, 0, 1] > 2 * error[0, 0, 0, 0]
        assert error[1, 1, 0, 0] > 4 * error[1, 1, 0, 1]
    assert found.headline["median_factor_between_theory_and_network"] < 1.3


@pytest.mark.slow
def test_fine_detail_comes_sooner_with_a_flat_spectrum(tmp_path: Path) -> None:
    found, _ = run(SpectralBiasStudy(steps=60), tmp_path)
    assert found.headline["error_ratio_at_the_end"] > 3
    rings = found.figures["spectral_bias"][1]["rings"]  # [method, step, ring]
    assert rings[1, -1, 2] < rings[0, -1, 2] / 2


@pytest.mark.slow
def test_the_gain_grows_with_the_batch_as_the_theory_says(tmp_path: Path) -> None:
    found, _ = run(BatchSizeStudy(repeats=1, batch_sizes=[1, 16, 256]), tmp_path)
    gains = [found.headline[f"gain_at_{m}_parameter_side"] for m in (1, 16, 256)]
    assert gains[0] < gains[1] < gains[2]
    assert found.headline["critical_batch_raised"] > 5
    for m, gain in zip((1, 16, 256), gains, strict=True):
        assert abs(math.log2(gain / found.headline[f"gain_at_{m}_theory"])) < 1.5
