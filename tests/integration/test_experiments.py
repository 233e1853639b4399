"""Experiments on any kind of data: a few steps of each, what they leave, how they resume, evaluate and refuse."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from program import call, configure, load, resume, train

from spectrain import plots
from spectrain.cli.train import train as train_program

# Experiment -> the words that make it tiny, the quality that runs are judged by, its headline numbers.
TINY = {
    "signal_1d": (["data.samples=64", "data.frequencies=[1,6]"], "snr", ["error_f6", "baseline_error_f6"]),
    "tabular": (["spectrum.subset_size=64"], "rmse", ["stopped_test", "baseline_stopped_test", "kernel_test"]),
    "digits": (["data.path=sklearn:wine"], "accuracy", ["stopped_test", "baseline_stopped_test", "kernel_test"]),
    "grokking": (["data.modulus=7"], "accuracy", ["steps_to_fit", "baseline_steps_to_fit", "steps_to_generalise"]),
    "image": (["data.size=24"], "psnr", ["psnr_bicubic", "gain_db"]),
    "denoise": (["study=none", "data.size=16"], "psnr", ["best_step", "baseline_best_psnr", "psnr_noisy"]),
    "photograph_tuned": (["data.size=16"], "psnr", ["gain_db"]),
}
FIGURES = {
    "signal_1d": {"signal", "snr", "frequencies"},
    "tabular": {"rmse"},
    "image": {"reconstruction", "pictures", "psnr"},
}  # of one experiment for each kind of data: the others draw the same
COMMON = (
    "model.width=16",
    "spectrum.rank=8",
    "spectrum.subset_size=24",
    "spectrum.every_n_steps=2",
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    "logger=none",
)


def words(experiment: str) -> list[str]:
    return [f"experiment={experiment}", *COMMON, *TINY[experiment][0]]


@pytest.mark.parametrize("experiment", TINY)
def test_an_experiment_ends_with_its_headline_and_figures(
    experiment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, quality, headline = TINY[experiment]
    folder = tmp_path / "run"
    summary = train_program(
        configure(*words(experiment), f"paths.run_dir={folder}", f"figures={experiment in FIGURES}")
    )
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert {quality, f"best_{quality}", f"baseline_{quality}", *headline} <= set(summary)
    assert all(value is None or isinstance(value, int | float | str) for value in summary.values())
    assert any(key.startswith("gain_") for key in summary) and "gain" in capsys.readouterr().out
    drawn = {path.stem for path in (folder / "figures").glob("*.png")}
    assert drawn == (FIGURES[experiment] | {"spectrum", "band_energy"} if experiment in FIGURES else set())
    for name in FIGURES.get(experiment, ()):
        arrays = plots.load_arrays(folder / "figures" / name)
        if name not in ("signal", "reconstruction", "pictures"):
            assert set(arrays["run"]) == {"modified spectrum", "without"}
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 2, 4]
    assert float(rows[-1][quality]) == pytest.approx(summary[quality])
    best = load(folder / "checkpoints" / "best.ckpt")
    monitors = [state["monitor"] for key, state in best["callbacks"].items() if "ModelCheckpoint" in key]
    assert f"val/{quality}" in monitors


@pytest.mark.parametrize("experiment", ["signal_1d", pytest.param("digits", marks=pytest.mark.slow)])
def test_a_resumed_run_equals_an_uninterrupted_one(experiment: str, tmp_path: Path) -> None:
    tiny = (*words(experiment), "baseline=false", "figures=false", "data.batch_size=20", "schedule=constant")
    train(tmp_path / "whole", tiny=tiny)
    train(tmp_path / "parts", "trainer.max_steps=2", tiny=tiny)
    resume(tmp_path / "parts" / "checkpoints" / "last.ckpt", "trainer.max_steps=4")
    whole, parts = (load(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "parts"))
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][name]), name


@pytest.mark.parametrize("experiment", ["tabular", "image"])
def test_a_checkpoint_is_evaluated(experiment: str, tmp_path: Path) -> None:
    folder, quality = tmp_path / "run", TINY[experiment][1]
    summary = train(folder, "baseline=false", "figures=false", tiny=tuple(words(experiment)))
    outcome = call(f"ckpt_path={folder}/checkpoints/last.ckpt", program="evaluate")
    assert outcome.code == 0, outcome.err
    measured = json.loads((folder / "evaluation" / "metrics.json").read_text())
    assert measured[quality] == pytest.approx(summary[quality], rel=1e-4)
    if experiment != "image":
        with np.load(folder / "evaluation" / "predictions.npz") as arrays:
            assert len(arrays["predictions"]) == len(arrays["points"])
        error = call(f"ckpt_path={folder}/checkpoints/last.ckpt", "size=32", program="evaluate").error
        assert "size=32 is the resolution of a picture" in error


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["experiment=signal_1d", "data.path=gone.wav"], ["data.path='gone.wav' does not exist"]),
        (["experiment=signal_1d", "data.samples=0"], ["data.samples=0", "at least 1"]),
        (["experiment=signal_1d", "data.frequencies=3"], ["data.frequencies=3"]),
        (["experiment=tabular", "data.task=ranking"], ["data.task='ranking'", "classification"]),
        (["experiment=tabular", "data.test=1.5"], ["data.test=1.5", "share"]),
        (["experiment=tabular", "data.validation=0"], ["data.validation=0", "share"]),
        (["experiment=grokking", "data.train_share=1"], ["data.train_share=1", "share"]),
        (["experiment=digits", "data.standardize=none"], ["data.standardize='none'"]),
        (["experiment=grokking", "data.modulus=1"], ["data.modulus=1"]),
        (["experiment=grokking", "data.criterion=hinge"], ["data.criterion='hinge'"]),
        (["experiment=denoise", "data.noise=-1"], ["data.noise=-1"]),
        (["experiment=image", "data.downsample=0"], ["data.downsample=0"]),
        (["experiment=image", "data.holdout=true"], ["data.downsample=2", "data.holdout=false"]),
        (["experiment=digits", "optimizer=gauss_newton", "preconditioner=none"], ["cross-entropy"]),
        (["data=table", "preconditioner=grid"], ["grid"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_refused_with_one_sentence(given: list[str], said: list[str]) -> None:
    error = call("logger=none", *given).error
    assert all(part in error for part in said), error
    assert not Path("runs").exists()


def test_a_sweep_over_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.savetxt(tmp_path / f"{name}.csv", rng.normal(size=(60, 3)), delimiter=",", header="x,y,z", comments="")
    outcome = call(*words("tabular"), "figures=false", "-m", "data.path=a.csv,b.csv", "trainer.max_steps=2")
    assert outcome.code == 0, outcome.err
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_data_module_that_cannot_say_what_it_is_judged_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mylab.py").write_text("class Data:\n    def __init__(self, **_):\n        pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    error = call("data._target_=mylab.Data", "allow_targets=[mylab]", "logger=none").error
    assert "subclass of spectrain.data.FieldDataModule" in error and "mylab.Data" in error
