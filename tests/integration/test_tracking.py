"""What the trackers get, read back from their own files."""

import csv
import json
import math
import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import wandb
from program import TINY, call, resume, train
from pytorch_lightning.loggers import TensorBoardLogger
from wandb_files import parts

from spectrain.lightning import Tracker
from spectrain.lightning.wandb_records import last_step

GROUPS = {"train", "val", "spectrum", "preconditioner", "optimizer", "time"}
LAST = "checkpoints/last.ckpt"
PINN = (
    *("experiment=pinn_poisson2d", "data.points=40", "data.boundary_points=16", "trainer.max_steps=4"),
    *("trainer.val_check_interval=2", "trainer.log_every_n_steps=1", "model.width=8", "model.depth=2"),
)

ADAM = ("optimizer=adam", "optimizer.lr=1e-3", "preconditioner=sample", "spectral_map=power")


def csv_columns(folder: Path) -> dict[str, dict[int, float]]:
    """{scalar: {step: value}} of metrics.csv."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "step"]
    return {name: {int(row["step"]): float(row[name]) for row in rows if row[name]} for name in names}


def undocumented(names: Iterable[str]) -> set[str]:
    """Scalars that the table of docs/dashboards.md does not have."""
    table = (Path(__file__).parents[2] / "docs" / "dashboards.md").read_text(encoding="utf-8")
    return {re.sub(r"band_\d+", "band_0", name) for name in names} - set(re.findall(r"`([a-z]+/[a-z0-9_]+)`", table))


def wandb_columns(rows: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """The same of a W&B run's rows, without its own counters, histograms and media."""
    columns: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            own = name.startswith("_") or name == "trainer/global_step" or name.count("/") > 1
            if not own and name != "epoch":
                columns.setdefault(name, {})[row["trainer/global_step"]] = value
    return columns


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all that W&B can be given; the guard is on, for its scalars."""
    folder = tmp_path_factory.mktemp("tracked") / "run"
    train(folder, "logger=wandb", "logger.checkpoints=true", "logger.tags=[mine]", "figures=true", "guard=true")
    return folder


def test_wandb_has_the_same_scalars_as_metrics_csv(tracked: Path) -> None:
    (part,) = parts(tracked)
    found, expected = wandb_columns(part.rows), csv_columns(tracked)
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        assert found[name] == pytest.approx(column, rel=1e-6, nan_ok=True), name
    assert {name.partition("/")[0] for name in found} <= GROUPS and undocumented(found) == set()
    wanted = {"train/loss", "val/psnr", "spectrum/condition_after", "spectrum/band_0", "preconditioner/strength"}
    assert wanted | {"time/seconds", "time/cpu_seconds", "time/steps_per_second", "time/refresh_share"} <= found.keys()


def test_wandb_steps_rise_and_number_its_own_rows(tracked: Path) -> None:
    (part,) = parts(tracked)
    assert part.steps() == sorted(set(part.steps())) == [row["_step"] for row in part.rows]


def test_the_last_step_is_read_from_wandbs_own_file_however_short_it_is(tracked: Path, tmp_path: Path) -> None:
    parts(tracked)
    assert last_step(tracked) == 6 and last_step(tmp_path) == 0
    (file,) = (tracked / "wandb").glob("offline-run-*/run-*.wandb")
    place = tmp_path / "wandb" / "offline-run-x" / "run-x.wandb"
    place.parent.mkdir(parents=True)
    seen = set()
    for length in range(0, file.stat().st_size, 499):  # killed anywhere
        place.write_bytes(file.read_bytes()[:length])
        seen.add(last_step(tmp_path))
    assert {0, 3, 5} <= seen <= set(range(7))


def test_wandb_has_configuration_names_histograms_figures_modes_and_checkpoints(tracked: Path) -> None:
    (part,) = parts(tracked)
    assert part.config["model"]["width"] == 16 and part.config["paths"]["run_dir"] == str(tracked)
    assert "${" not in json.dumps(part.config)
    assert list(part.run.tags) == ["mine"] and part.run.run_group == "" and part.run.display_name == "run"
    last = part.rows[-1]
    assert {f"figures/{name}/path" for name in ("reconstruction", "spectrum", "psnr", "band_energy")} <= set(last)
    assert any(sum(row.get("spectrum/log10_eigenvalues/values", [])) == 8 for row in part.rows)
    assert any("spectrum/log10_mapped_eigenvalues/values" in row for row in part.rows)
    (table,) = (tracked / "wandb").rglob("modes_*.table.json")
    assert json.loads(table.read_text())["columns"][:4] == ["mode", "eigenvalue", "mapped_eigenvalue", "energy"]
    files = {entry.path for artifact in part.artifacts for entry in artifact.manifest.contents}
    assert {"best.ckpt", "last.ckpt"} <= files
    assert part.summary["final/psnr"] == pytest.approx(json.loads((tracked / "summary.json").read_text())["psnr"])


def test_a_sweep_of_studies_shows_each_its_headline_and_figure(tmp_path: Path) -> None:
    tiny = ("frequencies=[1,2]", "degrees=[1]", "points=20", "sphere_points=30", "most_steps=40", "width=16,32")
    outcome = call("-m", "experiment=circle", "logger=wandb", *(f"study.{word}" for word in tiny))
    assert outcome.code == 0, outcome.err
    folders = [path.parent for path in (tmp_path / "runs").rglob("summary.json")]
    assert len(folders) == 2
    for folder in folders:
        (part,) = parts(folder)
        name, value = next(iter(json.loads((folder / "summary.json").read_text()).items()))
        assert part.summary[f"final/{name}"] == value
        assert part.exit_code == 0 and "figures/circle/path" in part.rows[-1]


def test_a_study_shows_what_moves(tmp_path: Path) -> None:
    tiny = ("picture=17", "width=16", "rank=8", "steps=4")
    outcome = call("experiment=spectral_bias", "logger=wandb", "paths.run_dir=r", *(f"study.{word}" for word in tiny))
    assert outcome.code == 0, outcome.err
    (part,) = parts(tmp_path / "r")
    assert part.rows[-1]["figures/spectral_bias_over_time/path"].endswith(".gif")


def test_the_table_of_modes_has_the_bands_energy(tracked: Path) -> None:
    with (tracked / "modes.csv").open(newline="") as file:
        modes = list(csv.DictReader(file))
    with (tracked / "history.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert len(modes) == 8
    assert sum(float(row["energy"]) for row in modes[1:4]) == pytest.approx(float(last["band_1"]))
    assert all(float(row["predicted_steps"]) <= float(row["predicted_steps_without"]) for row in modes)


def test_tensorboard_has_the_same_scalars_as_metrics_csv(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path / "r", "logger=tensorboard", "preconditioner=none")
    events = EventAccumulator(str(tmp_path / "r" / "tensorboard")).Reload()
    tags = events.Tags()
    expected = csv_columns(tmp_path / "r")
    assert set(tags["scalars"]) - {"epoch", "hp_metric"} == expected.keys()
    for name, column in expected.items():
        assert {e.step: e.value for e in events.Scalars(name)} == pytest.approx(column, rel=1e-5), name
    assert tags["histograms"] == ["spectrum/log10_eigenvalues"], "without S there is no second spectrum"


@pytest.mark.parametrize("words", [(), ADAM])
def test_a_run_on_an_equation_logs_the_same_groups(tmp_path: Path, words: tuple[str, ...]) -> None:
    tiny = ("trainer.accelerator=cpu", "logger=wandb", "figures=false", *PINN)
    train(tmp_path / "r", *words, *(("spectrum.every_n_steps=2",) if words else ()), tiny=tiny)
    (part,) = parts(tmp_path / "r")
    found = wandb_columns(part.rows)
    assert found.keys() == csv_columns(tmp_path / "r").keys()
    assert {"train/loss", "val/l2_error", "time/cpu_seconds", "time/steps_per_second"} <= found.keys()
    assert ("spectrum/condition_after" in found) == bool(words) and undocumented(found) == set()
    with (tmp_path / "r" / "modes.csv").open(newline="") as file:
        modes = list(csv.DictReader(file))
    assert all(math.isfinite(float(row["energy"])) for row in modes)


def test_a_run_that_was_killed_goes_on_in_the_same_wandb_run_without_going_back(tmp_path: Path) -> None:
    """Killed after step 5, last checkpoint at step 3: steps 3 and 4 are made again, and not logged again."""
    folder = tmp_path / "r"
    steps = ("trainer.max_steps=20", "schedule=constant")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spectrain.lightning.WideNetworkModule.training_step", dies_at(5))
        with pytest.raises(KeyboardInterrupt):
            train(folder, "logger=wandb", *steps)
    wandb.finish()
    run_id = (folder / "wandb_id.txt").read_text()
    time.sleep(1.1)  # offline folders are named by the second
    resume(folder / LAST)
    assert (folder / "wandb_id.txt").read_text() == run_id
    first, second = parts(folder)
    assert first.run.run_id == second.run.run_id == run_id.strip()
    together = first.steps() + second.steps()
    assert together == sorted(together) and second.steps()[-1] == 20
    assert set(range(20)) <= set(together), "no step is missing"


def dies_at(step: int) -> Any:
    """A training_step after which the process is gone: nobody is told."""
    from spectrain.lightning import WideNetworkModule

    working = WideNetworkModule.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == step:
            raise SystemExit(9)
        return working(self, batch, batch_idx)

    return training_step


def test_the_jobs_of_a_sweep_are_a_group(tmp_path: Path) -> None:
    outcome = call(*TINY, "logger=wandb", "-m", "seed=0,1", "figures=false")
    assert outcome.code == 0, outcome.err
    runs = [parts(folder)[0].run for folder in sorted((tmp_path / "runs").iterdir())]
    assert len(runs) == 2
    (group,) = {run.run_group for run in runs}
    assert group.startswith("sweep-") and {run.job_type for run in runs} == {"sweep"}
    assert set(runs[0].tags) == {"ImageDataModule", "mlp", "SOAP", "SamplePreconditioner", "power"}


def test_a_run_whose_loss_is_nan_alerts_and_counts_as_failed(tmp_path: Path) -> None:
    outcome = call(*TINY, "logger=wandb", "optimizer=sgd", "optimizer.lr=1e30", "paths.run_dir=r")
    assert "loss is nan" in outcome.error
    (part,) = parts(tmp_path / "r")
    (alert,) = part.alerts
    assert "loss is nan" in alert.text and alert.level == "ERROR"
    assert part.exit_code == 1


def test_online_without_a_network_starts_at_once_and_goes_on_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb.setup().settings, "base_url", "http://127.0.0.1:9")  # read once in a process
    outcome = call(*TINY, "logger=wandb", "logger.mode=online", "paths.run_dir=r")
    assert outcome.code == 0, outcome.err
    (line,) = [line for line in outcome.err.splitlines() if "W&B" in line]
    assert line.startswith("warning: W&B is not online: http://127.0.0.1:9 cannot be reached")
    assert "wandb sync r/wandb/offline-run-" in outcome.out
    (part,) = parts(tmp_path / "r")
    assert part.steps()[-1] == 6


def test_a_wandb_that_does_not_start_at_all_costs_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    working = wandb.init

    def init(**settings: Any) -> Any:
        if settings["mode"] == "offline":
            raise wandb.errors.CommError("no process")
        return working(**settings)

    monkeypatch.setattr(wandb, "init", init)
    outcome = call(*TINY, "logger=wandb", "paths.run_dir=r")
    assert outcome.code == 0, outcome.err
    assert "warning: W&B does not start: no process; the run goes on without it." in outcome.err
    assert "wandb sync" not in outcome.out


def test_what_wandb_refuses_is_a_mistake_of_ones_own() -> None:
    assert "W&B refuses" in call(*TINY, "logger=wandb", "logger.project=a/b", "paths.run_dir=r").error


@pytest.mark.parametrize("kind", ["raises", "hangs"])
def test_a_tracker_that_is_broken_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def log_metrics(self: TensorBoardLogger, metrics: Any, step: int | None = None) -> None:
        if kind == "raises":
            raise OSError(28, "No space left on device")
        threading.Event().wait()

    expected = train(tmp_path / "without")
    monkeypatch.setattr(TensorBoardLogger, "log_metrics", log_metrics)
    monkeypatch.setattr(Tracker.__init__, "__defaults__", (0, 0.1))
    outcome = call(*TINY, "logger=tensorboard", "paths.run_dir=r")
    assert outcome.code == 0, outcome.err
    said = [line for line in outcome.err.splitlines() if "the tracker TensorBoardLogger" in line]
    assert 1 <= len(said) <= 2
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["psnr"] == expected["psnr"]


@pytest.mark.parametrize("word", ["logger.tags=[1]", "logger.checkpoints=3", "logger.project=''", "logger.group=[a]"])
def test_bad_settings_are_refused(word: str) -> None:
    assert word.partition("=")[0] in call(*TINY, "logger=wandb", word).error
