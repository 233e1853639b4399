"""A race from its configuration to its page; the cells' training is replaced by curves, except in the slow test."""

import csv
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from spectrain import InputError
from spectrain.cli import race_cells
from spectrain.cli.compare import compare
from spectrain.cli.config_dir import config_dir
from spectrain.cli.race_cells import Cell, run_cell

SMALL = ("tasks=[camera_64]", "methods=[soap,soap_S]", "seeds=[0,1]", "rates=[1,2]", "budget=3", "calibration_steps=10")


def configure(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("compare", list(overrides))


Program = Callable[[list[str]], None]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The overrides of every training so far; a step takes .1 s, with S .2 s, and S gives 10 dB more."""
    calls: list[list[str]] = []

    def program(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        words = command[3:]
        calls.append(words)
        given = dict(word.split("=", 1) for word in words)
        if given["optimizer.lr"] == "0.02" and given["preconditioner"] == "sample" and given["seed"] == "1":
            return subprocess.CompletedProcess(command, 2, "", "warning: hot\nerror: The loss is nan.\n")
        S = given["preconditioner"] == "sample"
        folder = Path(given["paths.run_dir"].strip("'"))
        (folder / "figures").mkdir(parents=True)
        steps = int(given["trainer.max_steps"])
        with (folder / "history.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "seconds", "cpu_seconds", "psnr"])
            for step in (0, steps // 3, steps):
                writer.writerow([step, 0, 0.5 + step * (0.2 if S else 0.1), step + 10 * S])
        picture = np.zeros((4, 4, 1))
        np.savez(folder / "figures" / "reconstruction.npz", target=picture, reconstruction=picture)
        (folder / "summary.json").write_text("{}")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(race_cells.subprocess, "run", program)
    return calls


def test_every_cell_gets_the_same_time(trained: list[list[str]], tmp_path: Path) -> None:
    table = compare(configure(*SMALL, f"output_dir={tmp_path}"))
    assert [(s.method, s.steps) for s in table] == [("soap", 25), ("soap_S", 12)]  # (3 - .5) / .1 and / .2
    assert len(trained) == 2 * 2 + 2 * 2 * 2
    rates = [word for words in trained for word in words if word.startswith("optimizer.lr=")]
    assert {*rates} == {"optimizer.lr=0.01", "optimizer.lr=0.02"}
    methods = ["sample" if "preconditioner=sample" in words else "none" for words in trained[4:]]
    assert methods == ["none", "sample"] * 4, "methods take turns"


def test_a_finished_cell_is_not_run_again(trained: list[list[str]], tmp_path: Path) -> None:
    first = compare(configure(*SMALL, f"output_dir={tmp_path}"))
    done = len(trained)
    assert compare(configure(*SMALL, f"output_dir={tmp_path}")) == first
    assert len(trained) == done
    compare(configure(*SMALL, "seeds=[0,1,2]", f"output_dir={tmp_path}"))
    assert len(trained) == done + 4


def test_what_is_written(trained: list[list[str]], tmp_path: Path) -> None:
    compare(configure(*SMALL, f"output_dir={tmp_path}"))
    found = json.loads((tmp_path / "results.json").read_text())
    assert [s["failed"] for s in found["standings"]] == [0, 1]
    failed = [cell for cell in found["cells"] if cell["error"]]
    assert [cell["error"] for cell in failed] == ["The loss is nan."]
    assert all(cell["command"].startswith('make train ARGS="') for cell in found["cells"])
    with (tmp_path / "results.csv").open() as file:
        assert {row["method"] for row in csv.DictReader(file)} == {"soap", "soap_S"}
    page = (tmp_path / "index.html").read_text()
    assert "camera_64" in page and "<svg" in page and "The loss is nan." in page
    links = re.findall(r'(?:src|href)="(?!#|data:)([^"]*)"', page)
    assert links == [], "the page opens offline"
    figures = re.findall(r'id="(\w+?)_figure_1"', page)
    assert len(figures) == len({*figures}) == 2, "figures of one page must not share ids"


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("tasks=[camera_46]", "Did you mean camera_64"),
        ("methods=[sopa]", "there is no 'sopa'"),
        ("race.better=more", "higher or lower"),
        ("budget=-1", "budget=-1"),
        ("seeds=[]", "seeds"),
        ("rates=[0]", "rates"),
        ("+race.methods.mine=['optimizer=sopa']", "optimizer=soap"),
        ("+race.methods.mine=['optimizer.lr=-1']", "optimizer.lr=-1"),
    ],
)
def test_mistakes_are_said_before_anything_runs(trained: list[list[str]], tmp_path: Path, word: str, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        compare(configure(f"output_dir={tmp_path / 'new'}", word))
    assert not trained and not (tmp_path / "new").exists()


def test_another_setting_is_another_folder(tmp_path: Path) -> None:
    one = Cell("task", "soap", ("optimizer=soap",), 0, 0.01, 100)
    other = Cell("task", "soap", ("optimizer=soap",), 0, 0.01, 101)
    assert one.folder(tmp_path) != other.folder(tmp_path)
    assert one.folder(tmp_path) == Cell("task", "soap", ("optimizer=soap",), 0, 0.01, 100).folder(tmp_path)


@pytest.mark.slow
def test_a_cell_is_trained_by_the_program(tmp_path: Path) -> None:
    words = ("data.size=12", "model.width=16", "spectrum.rank=8", "spectrum.subset_size=64")
    result = run_cell(Cell("tiny", "soap", words, 0, 0.01, 4, figures=True), tmp_path)
    assert [row["step"] for row in result.curve] == [0, 1, 2, 3, 4]
    assert result.cpu_seconds > 0 and (result.folder / "figures" / "reconstruction.npz").exists()
    assert run_cell(Cell("tiny", "bad", (*words, "model.depth=-1"), 0, 0.01, 4), tmp_path).error.startswith(
        "model.depth"
    )
