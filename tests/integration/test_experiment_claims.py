"""What the experiments of one run claim (docs/data.md), in their default sizes; tolerances beside what was measured."""

import json
from pathlib import Path
from typing import Any

import pytest
from program import call

pytestmark = pytest.mark.slow


def run(tmp_path: Path, *words: str) -> dict[str, Any]:
    folder = tmp_path / "run"
    more = ("logger=none", "figures=false", "trainer.accelerator=cpu", f"paths.run_dir={folder}")
    outcome = call(*words, *more)
    assert outcome.code == 0, outcome.err
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def test_high_frequencies_of_a_signal_are_learned_with_s_only(tmp_path: Path) -> None:
    """At 32 periods 34 % of the error are left with S and 97 % without; 12.8 against 4.1 dB."""
    found = run(tmp_path, "experiment=signal_1d")
    assert found["error_f32"] < 0.6 and found["baseline_error_f32"] > 0.85
    assert found["gain_db"] > 5


def test_flattening_harms_on_a_noisy_picture_and_a_gentle_map_does_not(tmp_path: Path) -> None:
    """Best PSNR: power(.25) 25.6 dB, without S 23.5, power(.7) 22.2, flatten 20.6."""
    found = run(tmp_path, "experiment=denoise", "data.size=32")
    without = found["without_best_psnr"]
    assert found["power_quarter_best_psnr"] > without + 0.5 and found["flatten_best_psnr"] < without - 1


def test_accuracy_on_digits_does_not_fall(tmp_path: Path) -> None:
    """The negative control: .9805 with S, .9777 without."""
    found = run(tmp_path, "experiment=digits")
    assert found["stopped_test"] > found["baseline_stopped_test"] - 0.01 and found["stopped_test"] > 0.96


def test_kernel_regression_is_better_on_a_table_than_either_network(tmp_path: Path) -> None:
    """RMSE 55.1, 63.2 with S, 59.8 without: the noise of diabetes lies beyond the modes that descent takes first."""
    found = run(tmp_path, "experiment=tabular")
    assert found["kernel_test"] < found["baseline_stopped_test"] < found["stopped_test"] + 1


def test_a_network_from_fewer_pixels_is_as_good_as_bicubic_interpolation(tmp_path: Path) -> None:
    """28.5 dB with S, 28.9 without, 28.5 by bicubic interpolation."""
    found = run(tmp_path, "experiment=image")
    for name in ("psnr", "baseline_psnr"):
        assert abs(found[name] - found["psnr_bicubic"]) < 1.5


def test_s_shortens_the_delay_of_grokking(tmp_path: Path) -> None:
    """1,000 steps with S, 1,450 without, on seed 0."""
    found = run(tmp_path, "experiment=grokking")
    assert found["steps_to_generalise"] < 0.85 * found["baseline_steps_to_generalise"]
