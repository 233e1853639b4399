"""What a run leaves: files, keys, numbers that agree with each other, and nothing elsewhere."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from program import TINY as TINY_WORDS
from program import call, load, train

from spectrain import plots

SUMMARY = {
    *("psnr", "ssim", "mse", "loss", "best_psnr", "best_ssim", "best_mse"),
    *("steps", "seconds", "cpu_seconds", "refresh_seconds", "refreshes", "peak_memory_mib"),
    *("resolved_modes", "condition_before", "condition_after", "eigenvalue_ratio_1_64"),
    *("effective_rank", "participation_ratio"),
    *("spectrain", "python", "git_commit", "version_torch", "version_pytorch-lightning", "version_torchmetrics"),
    *("version_hydra-core", "version_wandb", "version_numpy"),
}
BASELINE = {"baseline_psnr", "baseline_seconds", "baseline_cpu_seconds", "gain_db", "seconds_to_baseline_psnr"}
FIGURES = ("reconstruction", "spectrum", "psnr", "band_energy")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One run with everything on, as `make train` does it, W&B aside."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, train(folder, "figures=true", "baseline=true")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_folder_holds_what_was_promised_and_nothing_else(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = whole
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expected = {"config.yaml", "metrics.csv", "history.csv", "modes.csv", "summary.json"}
    expected |= {"checkpoints/best.ckpt", "checkpoints/last.ckpt"}
    expected |= {f"figures/{name}.{suffix}" for name in FIGURES for suffix in ("png", "pdf", "npz")}
    assert found - {f for f in found if f.startswith("baseline/")} == expected
    assert {"baseline/config.yaml", "baseline/metrics.csv", "baseline/checkpoints/last.ckpt"} <= found


def test_the_summary_is_flat_and_complete(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, returned = whole
    written = json.loads((folder / "summary.json").read_text())
    assert written == returned
    assert set(written) >= SUMMARY | BASELINE
    assert all(value is None or isinstance(value, int | float | str) for value in written.values())
    assert all(math.isfinite(value) for value in written.values() if isinstance(value, float))
    assert written["steps"] == 6
    assert written["best_psnr"] >= written["psnr"] and written["best_mse"] <= written["mse"]
    assert written["psnr"] == pytest.approx(10 * math.log10(4 / written["mse"]), abs=1e-3)
    assert 0 < written["refresh_seconds"] < written["seconds"]
    assert written["gain_db"] == pytest.approx(written["psnr"] - written["baseline_psnr"])
    assert written["condition_after"] < written["condition_before"]
    assert 1 <= written["participation_ratio"] <= written["effective_rank"] <= written["resolved_modes"]
    assert written["version_torch"] == torch.__version__
    assert len(written["git_commit"] or "0" * 40) == 40


def test_config_yaml_is_resolved_and_makes_the_same_run(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = whole
    text = (folder / "config.yaml").read_text()
    assert text.startswith("# spectrain ") and "${" not in text
    config = yaml.safe_load(text)
    assert config["data"]["size"] == 12
    assert config["callbacks"]["checkpoint"]["dirpath"] == f"{folder}/checkpoints"


def test_metrics_csv_has_a_row_per_step_and_the_refreshes(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = whole
    found = rows(folder)
    steps = [int(row["step"]) for row in found]
    assert steps == sorted(set(steps)) and steps[0] == 0 and steps[-1] == 6
    assert [row["step"] for row in found if row["train/loss"]] == [str(step) for step in range(6)]
    assert [row["step"] for row in found if row["val/psnr"]] == ["3", "6"]
    assert float(found[-1]["val/psnr"]) == pytest.approx(summary["psnr"], rel=1e-5)
    refreshes = [row for row in found if row["time/refresh_seconds"]]
    assert len(refreshes) == summary["refreshes"]
    assert float(refreshes[-1]["spectrum/condition_before"]) == pytest.approx(summary["condition_before"], rel=1e-5)
    assert float(refreshes[-1]["spectrum/effective_rank"]) == pytest.approx(summary["effective_rank"], rel=1e-5)
    rates = [float(row["optimizer/lr"]) for row in found if row["optimizer/lr"]]
    assert rates == sorted(rates, reverse=True) and rates[0] > rates[-1]


def test_figures_can_be_drawn_again_from_their_numbers(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = whole
    arrays = {name: plots.load_arrays(folder / "figures" / name) for name in FIGURES}
    target, image = arrays["reconstruction"]["target"], arrays["reconstruction"]["reconstruction"]
    assert target.shape == image.shape == (12, 12, 1)
    assert ((target - image) ** 2).mean() == pytest.approx(summary["mse"], rel=1e-4)
    assert list(arrays["psnr"]["step"]) == [0, 3, 6] * 2, "the run and its baseline"
    assert arrays["psnr"]["psnr"][2] == pytest.approx(summary["psnr"])
    assert set(arrays["psnr"]["run"]) == {"modified spectrum", "without"}
    energy = arrays["band_energy"]["energy"]
    assert energy.shape == (3, 1 + len(arrays["band_energy"]["last_mode"])) and (energy >= 0).all()
    assert (arrays["spectrum"]["ratio"] <= 1).all() and arrays["spectrum"]["ratio"][0] < 0.9
    for name in FIGURES:
        assert (folder / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert (folder / "figures" / f"{name}.pdf").read_bytes()[:5] == b"%PDF-"
        getattr(plots, f"{name}_figure")(**arrays[name])


def test_checkpoints_hold_tensors_and_plain_values(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, _summary = whole
    last = load(folder / "checkpoints" / "last.ckpt")  # weights_only=True
    assert last["global_step"] == 6
    assert last["preconditioner"]["eigenvectors"][0].shape == (144, 8)
    assert "model" in yaml.safe_load(last["config"])
    best = load(folder / "checkpoints" / "best.ckpt")
    assert best["global_step"] in (3, 6)


def test_nothing_is_written_outside_the_run_folder(tmp_path: Path) -> None:
    outcome = call("paths.output_dir=here", *TINY_WORDS)
    assert outcome.code == 0 and outcome.err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    (folder,) = (tmp_path / "here").iterdir()
    assert folder.name.startswith("image-")
    assert str(folder.relative_to(tmp_path)) in outcome.out


def test_two_runs_in_one_second_get_two_folders(tmp_path: Path) -> None:
    outcome = call(*TINY_WORDS, "-m", "optimizer.lr=1e-2,1e-3", "trainer.max_steps=2")
    assert outcome.code == 0
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 2
    rates = {yaml.safe_load((folder / "config.yaml").read_text())["optimizer"]["lr"] for folder in folders}
    assert rates == {1e-2, 1e-3}


def test_a_failed_job_of_a_sweep_is_listed_and_forgotten_by_the_next_call() -> None:
    outcome = call(*TINY_WORDS, "-m", "data.path=gone.png,null", "trainer.max_steps=2")
    assert outcome.code == 2 and "the sweep goes on" in outcome.err
    listed = outcome.err.splitlines()[-1]
    assert "data.path=gone.png" in listed and "trainer.max_steps=2" in listed
    assert call(*TINY_WORDS, "trainer.max_steps=2").code == 0


def test_the_end_of_a_run_says_what_was_gained_and_where_things_are(tmp_path: Path) -> None:
    out = call(*TINY_WORDS, "baseline=true", "figures=true", "paths.run_dir=r").out
    for part in (
        "PSNR",
        "SSIM",
        "refreshes of the spectrum",
        "condition number",
        "gain",
        "r/summary.json",
        "r/figures",
    ):
        assert part in out
    assert "\x1b" not in out and "\r" not in out, "plain lines in a file"
    assert "GPU available" not in out and "LeafSpec" not in out


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    a, b, c = (train(tmp_path / name, f"seed={seed}") for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert a["psnr"] == b["psnr"] != c["psnr"]


def test_figures_can_be_left_out(tmp_path: Path) -> None:
    outcome = call(*TINY_WORDS, "paths.run_dir=r")
    assert not (tmp_path / "r" / "figures").exists()
    assert "r/figures" not in outcome.out, "the table must not name a folder that is not there"
