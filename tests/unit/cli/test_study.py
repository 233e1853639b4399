"""From an experiment's configuration to the folder that a study leaves; the studies here are made for the tests."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf, open_dict

from spectrain import InputError
from spectrain.cli import build
from spectrain.cli.overrides import composed
from spectrain.cli.run_folder import finished_summary
from spectrain.cli.sized import register_sized
from spectrain.cli.train import train
from spectrain.cli.validation import validate
from spectrain.studies import Cells, Findings

THIS = __name__


def draw(x: np.ndarray) -> Figure:
    figure = Figure()
    figure.subplots().plot(x)
    return figure


@dataclass
class Squares:
    """Squares of the first numbers; `stop_at` is a Ctrl-C."""

    n: int = 3
    stop_at: ClassVar[int | None] = None
    computed: ClassVar[list[int]] = []

    def run(self, cells: Cells) -> Findings:
        cells.total = self.n
        values = [float(cells(f"square {i}", lambda i=i: self._square(i))["value"]) for i in range(self.n)]  # type: ignore[misc]
        return Findings({"largest": values[-1]}, {"squares": (draw, {"x": np.array(values)})}, [("largest", "see")])

    def _square(self, i: int) -> dict[str, float]:
        if i == self.stop_at:
            type(self).stop_at = None
            raise KeyboardInterrupt
        self.computed.append(i)
        return {"value": float(i**2)}


@dataclass
class TwoRuns:
    """The training program with two learning rates."""

    trains: ClassVar[bool] = True

    def run(self, cells: Cells) -> Findings:
        runs = [cells.train(f"lr {lr}", [f"optimizer.lr={lr}"]) for lr in (0.01, 0.02)]
        return Findings({"best": max(r.summary["psnr"] for r in runs), "rows": len(runs[0].history["psnr"])}, {}, [])


def settings(study: str, tmp_path: Path, *words: str, **arguments: object) -> DictConfig:
    sys.modules.setdefault(THIS, sys.modules[__name__])
    cfg = composed([*words, f"allow_targets=[{THIS}]", f"paths.output_dir={tmp_path}"])
    with open_dict(cfg):
        cfg.study = {"_target_": f"{THIS}.{study}", **arguments}
    return cfg


def run(cfg: DictConfig, *words: str) -> dict[str, object]:
    return train(cfg, list(words), "squares")


def test_a_study_leaves_summary_figures_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(settings("Squares", tmp_path, "logger=none"))
    (folder,) = tmp_path.glob("squares-*")
    assert json.loads((folder / "summary.json").read_text())["largest"] == 4.0
    assert {p.suffix for p in (folder / "figures").iterdir()} == {".png", ".pdf", ".npz"}
    out = capsys.readouterr().out
    assert "[3/3] square 2" in out and "largest" in out and str(folder) in out


def test_a_stopped_study_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "here"
    words = ("logger=none", f"paths.run_dir={place}")
    cfg = settings("Squares", tmp_path, *words)
    Squares.computed.clear()
    Squares.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        run(cfg)
    assert f"paths.run_dir={place}" in capsys.readouterr().out
    run(settings("Squares", tmp_path, *words))
    assert Squares.computed == [0, 1, 2]


def test_another_study_does_not_go_on_in_its_folder(tmp_path: Path) -> None:
    words = ("logger=none", f"paths.run_dir={tmp_path / 'here'}")
    run(settings("Squares", tmp_path, *words))
    with pytest.raises(InputError, match="other settings"):
        run(settings("Squares", tmp_path, *words, n=4))
    (tmp_path / "here" / "cells" / "square_1.npz").write_text("broken")
    with pytest.raises(InputError, match=r"square_1\.npz is broken"):
        run(settings("Squares", tmp_path, *words))


def test_words_that_cannot_have_an_effect_are_refused(tmp_path: Path) -> None:
    cfg = settings("Squares", tmp_path, "model.width=8", "logger=none")
    with pytest.raises(InputError, match=r"model\.width=8 has no effect"):
        run(cfg, "model.width=8", "logger=none")
    cfg.ckpt_path = "x.ckpt"
    with pytest.raises(InputError, match="goes on when it is started again"):
        run(cfg)


def test_the_runs_are_told_the_experiments_file_the_persons_own_words_and_the_seed(tmp_path: Path) -> None:
    small = ["seed=3", "model.width=8", "trainer.max_steps=4", "trainer.val_check_interval=2", "data.size=16"]
    small += ["preconditioner=none", "figures=false", "trainer.accelerator=cpu", "experiment=photograph_128"]
    cfg = settings("TwoRuns", tmp_path, "logger=none", *small)
    summary = run(cfg, *small)
    assert summary["rows"] == 3
    (folder,) = tmp_path.glob("squares-*")
    made = OmegaConf.load(folder / "cells" / "lr_0.02" / "config.yaml")
    assert (made.model.width, made.optimizer.lr, made.seed, made.study, made.figures) == (8, 0.02, 3, None, False)
    assert made.spectrum.subset_size == 1024, "of the experiment's file"
    assert "run folder" in (folder / "cells" / "lr_0.01.log").read_text()


def test_a_run_cannot_be_told_two_things(tmp_path: Path) -> None:
    words = ["optimizer.lr=0.1", "experiment=initialisation"]
    with pytest.raises(InputError, match=r"optimizer\.lr cannot be set here"):
        run(settings("TwoRuns", tmp_path, "logger=none"), *words)
    cfg = composed(["experiment=denoise", "spectral_map=heat", f"paths.run_dir={tmp_path / 'run'}"])
    with pytest.raises(InputError, match=r"spectral_map cannot be set here.*study=none"):
        run(cfg, "experiment=denoise", "spectral_map=heat")
    assert not (tmp_path / "run").exists(), "said before anything is trained"


def test_the_rules_know_lists_of_two_sizes() -> None:
    cfg = composed(["study=digits_seeds"])
    validate(cfg)
    cfg.size = "paper"
    validate(cfg)
    assert build.build(cfg, "study").seeds == [0, 1, 2, 3, 4]


def test_a_value_may_have_two_sizes() -> None:
    register_sized()
    cfg = OmegaConf.create({"size": "default", "a": "${sized:3,5}", "b": "${sized:[1,2],[3]}"})
    assert (cfg.a, list(cfg.b)) == (3, [1, 2])
    cfg.size = "paper"
    assert (cfg.a, list(cfg.b)) == (5, [3])


def test_it_goes_on_with_the_words_that_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Squares.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        run(settings("Squares", tmp_path, "logger=none"))
    (folder,) = tmp_path.glob("squares-*")
    words = ("logger=none", f"paths.run_dir={folder}", "resume=true")
    assert run(settings("Squares", tmp_path, *words))["largest"] == 4.0


def test_a_run_that_was_stopped_is_no_finished_part(tmp_path: Path) -> None:
    small = ["data.size=16", "model.width=8", "trainer.max_steps=4", "preconditioner=none", "trainer.accelerator=cpu"]
    run(settings("TwoRuns", tmp_path, "logger=none", "figures=false", *small), *small)
    (folder,) = tmp_path.glob("squares-*")
    path = folder / "cells" / "lr_0.02" / "summary.json"
    summary = json.loads(path.read_text())
    assert not summary["interrupted"]
    assert finished_summary(path.parent) == summary
    path.write_text(json.dumps({**summary, "interrupted": True}))
    assert finished_summary(path.parent) is None


def test_several_processes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one process"):
        run(settings("Squares", tmp_path, "logger=none", "trainer=ddp", "trainer.accelerator=cpu"))
    words = ["trainer.devices=1", "trainer.num_nodes=1"]  # of scripts/slurm/train.sbatch
    assert run(settings("Squares", tmp_path, "logger=none", *words), *words)["largest"] == 4.0
