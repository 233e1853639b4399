"""Every choice of the configuration trains: models, optimizers, loggers, data, a network of one's own."""

import json
import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from program import TINY, call, configure, load, train

from spectrain import SpectrainWarning
from spectrain.cli.train import train as run

OWN_NETWORK = """
import torch

class Net(torch.nn.Module):
    def __init__(self, in_features, out_features, units=12):
        super().__init__()
        self.a = torch.nn.Linear(in_features, units)
        self.b = torch.nn.Linear(units, out_features)

    def forward(self, x):
        return self.b(torch.tanh(3 * self.a(x)))

def not_a_network(in_features, out_features):
    return 3
"""


@pytest.mark.parametrize("preconditioner", ["sample", "batch", "none"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon", "sgd", "soap"])
def test_every_optimizer_learns_with_and_without_the_preconditioner(
    tmp_path: Path, optimizer: str, preconditioner: str
) -> None:
    # The ratios of each batch's own kernel reach down to floor^alpha: plain SGD wants a larger rate there.
    rate = ["optimizer.lr=5"] if (optimizer, preconditioner) == ("sgd", "batch") else []
    summary = train(
        tmp_path / "run",
        f"optimizer={optimizer}",
        *rate,
        f"preconditioner={preconditioner}",
        "trainer.max_steps=30",
        "trainer.val_check_interval=30",
    )
    rows = load(tmp_path / "run" / "checkpoints" / "last.ckpt")["callbacks"]["RunHistory"]["rows"]
    assert summary["psnr"] > rows[0]["psnr"] + 1
    assert (summary["refreshes"] > 0) == (preconditioner == "sample")
    assert (summary["condition_after"] is None) == (preconditioner == "none")
    assert summary["condition_before"] > 1


@pytest.mark.parametrize("batch_size", ["null", "50"])
def test_each_batchs_own_kernel(
    tmp_path: Path, batch_size: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The spectrum is measured once, for the figures; nothing is refreshed, and nothing says so."""
    words = ("preconditioner=batch", f"data.batch_size={batch_size}", "figures=true", "baseline=true")
    summary = train(tmp_path / "run", *words)
    assert summary["refreshes"] == summary["skipped_steps"] == 0
    assert summary["condition_after"] < summary["condition_before"]
    assert "gain_db" in summary
    printed = capsys.readouterr().out
    assert "for 6 steps" in printed and "refreshes" not in printed and "left out" not in printed
    assert (tmp_path / "run" / "figures" / "spectrum.png").exists()

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr("spectrain.preconditioners.batch_side.batch_kernel", fail)
    with pytest.warns(SpectrainWarning, match="went on without S"):
        assert train(tmp_path / "without", *words[:2])["skipped_steps"] == 6
    assert "S in 6 steps" in capsys.readouterr().out


@pytest.mark.parametrize("spectral_map", ["identity", "flatten", "power"])
def test_every_map(tmp_path: Path, spectral_map: str) -> None:
    summary = train(tmp_path / "run", f"spectral_map={spectral_map}")
    gain = summary["condition_before"] / summary["condition_after"]
    assert gain == pytest.approx({"identity": 1, "flatten": summary["condition_before"]}.get(spectral_map, gain))
    assert gain >= 1


def test_the_identity_map_changes_nothing_but_rounding(tmp_path: Path) -> None:
    kwargs = ("optimizer=sgd", "optimizer.lr=0.01", "trainer.max_steps=20")
    with_identity = train(tmp_path / "a", "spectral_map=identity", *kwargs)
    without = train(tmp_path / "b", "preconditioner=none", *kwargs)
    modified = train(tmp_path / "c", "spectral_map=flatten", *kwargs)
    assert with_identity["psnr"] == pytest.approx(without["psnr"], abs=1e-3)
    assert abs(modified["psnr"] - without["psnr"]) > 0.05


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=fourier", "model.features=32"),
        ("model=siren",),
        *((f"model.activation={name}",) for name in ("tanh", "gelu", "sine")),
        ("model.parameterization=standard",),
        ("model.depth=1", "model.center_output=false"),
        ("model=fourier", "model.features=8", "optimizer=muon", "data.batch_size=40"),
        ("schedule=constant",),
        ("schedule=warmup_cosine", "schedule.warmup_steps=2"),
        ("trainer.accumulate_grad_batches=2", "data.batch_size=30"),
        ("trainer.gradient_clip_val=1e-3",),
        ("trainer.precision=64-true", "optimizer=adam"),
        ("trainer.precision=bf16-mixed", "optimizer=adam"),
        ("spectrum.extension=nystrom",),
        ("spectrum.extension=exact",),
        ("trainer=cpu", "trainer.max_steps=2"),
        ("trainer.max_steps=1",),
        ("data.size=5", "spectrum.subset_size=16"),
        ("spectrum.rank=1",),
    ],
    ids=" ".join,
)
def test_variants_train(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    summary = train(tmp_path / "run", *overrides)
    assert math.isfinite(summary["psnr"]) and summary["refreshes"] >= 1
    assert summary["steps"] == load(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"]


@pytest.mark.parametrize("batch_size", ["null", "30"])
def test_held_out_pixels_are_not_trained_on(tmp_path: Path, batch_size: str) -> None:
    summary = train(
        tmp_path / "run", "data.holdout=true", f"data.batch_size={batch_size}", "trainer.max_steps=40", "data.size=14"
    )
    assert summary["psnr_heldout"] < summary["psnr"], "the seen half fits better than the unseen"
    assert load(tmp_path / "run" / "checkpoints" / "last.ckpt")["preconditioner"]["eigenvectors"][0].shape[0] == 98


def test_a_batch_above_the_data_is_clipped_and_said(tmp_path: Path) -> None:
    outcome = call(*TINY, "data.batch_size=1000")
    assert outcome.code == 0
    assert "warning: data.batch_size=1000 is above the 144 training points" in outcome.err


def test_a_subset_above_the_data_is_clipped_and_said_once(tmp_path: Path) -> None:
    outcome = call(*TINY, "spectrum.subset_size=1000")
    assert outcome.code == 0
    assert outcome.err.count("warning: spectrum.subset_size=1000 is above the 144 training points") == 1


def test_a_colour_photograph_of_odd_size_with_transparency(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 31, 4), dtype=np.uint8)
    Image.fromarray(pixels, "RGBA").save("my photo.png")
    outcome = call(*TINY, "data.path='my photo.png'", "figures=true", "paths.run_dir=r")
    assert outcome.code == 0, outcome.err
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert math.isfinite(summary["psnr"])
    with np.load(tmp_path / "r" / "figures" / "reconstruction.npz") as arrays:
        assert arrays["target"].shape == (3, 12, 3)
    grey = train(tmp_path / "grey", "data.path='my photo.png'", "data.grayscale=true")
    assert grey["psnr"] != summary["psnr"]


def test_wandb_runs_offline_and_each_run_is_its_own(tmp_path: Path) -> None:
    """Twice in one process, as a sweep does; no account, no network."""
    ids = []
    for name in ("a", "b"):
        outcome = call(*TINY, "logger=wandb", "figures=true", f"paths.run_dir={name}")
        assert outcome.code == 0, outcome.err
        (offline,) = (tmp_path / name / "wandb").glob("offline-run-*")
        assert len(written(next(iter(offline.glob("run-*.wandb"))))) > 1000
        assert f"wandb sync {name}/wandb/{offline.name}" in outcome.out
        pictures = {path.name.rsplit("_", 2)[0] for path in (offline / "files" / "media").rglob("*.png")}
        assert pictures == {"reconstruction", "spectrum", "psnr", "band_energy"}
        ids.append((tmp_path / name / "wandb_id.txt").read_text().strip())
        assert ids[-1] in offline.name
    assert ids[0] != ids[1]
    assert not (tmp_path / "wandb").exists()


def written(file: Path, patience: float = 60.0) -> bytes:
    """What W&B's own process has written; it empties its buffers a moment after `finish` has returned."""
    until = time.monotonic() + patience
    while len(raw := file.read_bytes()) < 1000 and time.monotonic() < until:
        time.sleep(0.2)
    return raw


def test_a_wandb_run_of_a_job_that_failed_is_not_continued_by_the_next(tmp_path: Path) -> None:
    failed = call(*TINY, "logger=wandb", "optimizer=sgd", "optimizer.lr=1e30", "paths.run_dir=a")
    assert "loss is nan" in failed.error
    assert call(*TINY, "logger=wandb", "paths.run_dir=b").code == 0
    assert list((tmp_path / "b" / "wandb").glob("offline-run-*"))


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path / "r", "logger=tensorboard", "figures=true")
    events = EventAccumulator(str(tmp_path / "r" / "tensorboard")).Reload()
    tags = events.Tags()
    assert {"train/loss", "val/psnr", "optimizer/lr", "spectrum/condition_after"} <= set(tags["scalars"])
    assert {"figures/reconstruction", "figures/psnr"} <= set(tags["images"])
    assert len(events.Scalars("train/loss")) == 6


@pytest.mark.parametrize("logger", ["none", "csv"])
def test_without_a_tracker_metrics_csv_is_still_there(tmp_path: Path, logger: str) -> None:
    train(tmp_path / "r", f"logger={logger}")
    assert (tmp_path / "r" / "metrics.csv").exists()
    assert not (tmp_path / "r" / "wandb").exists() and not (tmp_path / "r" / "lightning_logs").exists()


@pytest.fixture
def own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module mylab_nets on the path and a config group file model/mine.yaml in ./own."""
    (tmp_path / "mylab_nets.py").write_text(OWN_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    os.makedirs(tmp_path / "own" / "model")
    lines = ("_target_: mylab_nets.Net", "units: 20", "adaptive_lr: 0.01", "center_output: true")
    (tmp_path / "own" / "model" / "mine.yaml").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "own")


OWN = [word for word in TINY if not word.startswith("model.")]


def test_a_network_of_ones_own_by_target(tmp_path: Path, own_network: str) -> None:
    words = (*OWN, "--config-dir", own_network, "model=mine", "paths.run_dir=r")
    assert "model._target_=mylab_nets.Net is refused" in call(*words).error
    assert not (tmp_path / "r").exists()
    outcome = call(*words, "allow_targets=[mylab_nets]")
    assert outcome.code == 0, outcome.err
    state = load(tmp_path / "r" / "checkpoints" / "last.ckpt")["state_dict"]
    assert state["network.a.weight"].shape == (20, 2)
    # The checkpoint allows itself nothing: the command line must say so again.
    checkpoint = "ckpt_path=r/checkpoints/last.ckpt"
    assert "is refused" in call(checkpoint, program="evaluate").error
    assert call(checkpoint, "allow_targets=[mylab_nets]", program="evaluate").code == 0
    assert "is refused" in call(checkpoint, "trainer.max_steps=8").error
    assert call(checkpoint, "trainer.max_steps=8", "allow_targets=[mylab_nets]").code == 0


def test_a_target_that_makes_no_network(tmp_path: Path, own_network: str) -> None:
    cfg = configure(*OWN, "allow_targets=[mylab_nets]", f"paths.run_dir={tmp_path}/r")
    cfg.model = {"_target_": "mylab_nets.not_a_network", "adaptive_lr": 0.01}
    with pytest.raises(ValueError, match=r"it must make a torch\.nn\.Module"):
        run(cfg)
    assert not (tmp_path / "r").exists()


def test_a_torch_module_needs_no_permission(tmp_path: Path) -> None:
    cfg = configure(*OWN, f"paths.run_dir={tmp_path}/r")
    cfg.model = {"_target_": "torch.nn.Linear", "adaptive_lr": 0.01}
    assert math.isfinite(run(cfg)["psnr"])
    assert load(tmp_path / "r" / "checkpoints" / "last.ckpt")["state_dict"]["network.weight"].shape == (1, 2)
    assert torch.get_default_dtype() == torch.float32
