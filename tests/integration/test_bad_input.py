"""The issue's list of bad input, through the real `main`: exit code 2, one sentence, nothing written."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from program import TINY, call, load, train

ROOT = Path(__file__).parents[2]
EVALUATE = "evaluate"

NUMBERS = ["data.size", "model.width", "model.depth", "spectrum.rank", "spectrum.subset_size", "trainer.max_steps"]
# null and lists are refused too; tests/unit/cli/test_validation.py has every kind for every key.
NOT_COUNTS = ["0", "-1", "nan", "many"]
NOT_RATES = ["0", "-0.1", "nan", "inf", "fast"]


@pytest.fixture
def nothing_written(tmp_path: Path) -> Iterator[None]:
    """What lies in the folder before and after is the same, to the byte."""

    def snapshot() -> dict[str, bytes | None]:
        return {
            path.relative_to(tmp_path).as_posix(): path.read_bytes() if path.is_file() else None
            for path in tmp_path.rglob("*")
        }

    files(tmp_path)
    before = snapshot()
    yield
    assert snapshot() == before


def files(folder: Path) -> None:
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("this is not a picture")
    (folder / "pictures").mkdir()
    photograph = next(Path(p) for p in [camera()])
    (folder / "broken.png").write_bytes(photograph.read_bytes()[:2000])
    (folder / "photo.png").write_bytes(photograph.read_bytes())
    (folder / "garbage.ckpt").write_bytes(b"no checkpoint")
    torch.save({"weights": torch.ones(3)}, folder / "foreign.ckpt")
    torch.save({"code": print}, folder / "code.ckpt")
    version = {"spectrain_version": "0.1.0", "state_dict": {}}
    for name, config in (("config", "data: 3"), ("yaml", "a: ["), ("number", 3)):
        torch.save({**version, "config": config}, folder / f"wrong_{name}.ckpt")
    (folder / "full").mkdir()
    (folder / "full" / "config.yaml").write_text("another run")


def camera() -> str:
    from spectrain.data import shipped_images

    return str(shipped_images()["camera"])


# (words, what the one sentence must contain)
REFUSED: list[tuple[list[str], list[str]]] = [
    # an unknown key, group, choice, experiment
    (["model.wdith=512"], ["model.wdith", "model.width"]),
    (["modle=mlp"], ["modle", "model"]),
    (["lr=0.1"], ["lr", "optimizer.lr"]),
    (
        ["optimizer=sopa"],
        ["optimizer=sopa", "soap", "adafactor, adam, adamw, esgd, gauss_newton, lbfgs, lion, muon, nadam"],
    ),
    (["spectral_map=flaten"], ["spectral_map=flaten", "flatten"]),
    (["experiment=photograph_12"], ["experiment=photograph_12", "photograph_128"]),
    (["debug=overfitt"], ["debug=overfitt", "overfit"]),
    (["model.width"], ["model.width", "key=value"]),
    (["model.width=1,2"], ["model.width=1,2", "-m"]),
    (["--multirunn"], ["--multirunn", "--multirun"]),
    (["~data"], ["data", "missing"]),
    (["~optimizer"], ["optimizer", "missing"]),
    (["~callbacks"], ["callbacks", "missing"]),
    # a file
    (["data.path=nowhere.png"], ["data.path", "nowhere.png", "does not exist"]),
    (["data.path=phot.png"], ["data.path", "phot.png", "did you mean photo.png"]),
    (["data.path=empty.png"], ["data.path=empty.png", "empty"]),
    (["data.path=text.png"], ["data.path=text.png", "not an image", "PNG, JPEG"]),
    (["data.path=broken.png"], ["data.path=broken.png", "broken or truncated"]),
    (["data.path=pictures"], ["data.path=pictures", "directory"]),
    (["data.path=skimage:camra"], ["skimage:camra", "skimage:camera"]),
    (["data.path=3"], ["data.path=3"]),
    # ranks and subsets
    (["spectrum.rank=2000", "spectrum.subset_size=1024"], ["spectrum.rank=2000", "spectrum.subset_size=1024"]),
    (["spectrum.rank=64", "spectrum.subset_size=32"], ["spectrum.rank=64", "spectrum.subset_size=32"]),
    (["data.size=6", "spectrum.rank=40"], ["spectrum.rank=40", "36"]),
    (["spectral_map.rank=64", "spectrum.rank=64"], ["spectral_map.rank=64", "spectrum.rank"]),
    # checkpoints
    (["ckpt_path=none.ckpt"], ["ckpt_path=none.ckpt", "does not exist"]),
    (["ckpt_path=pictures"], ["ckpt_path=pictures", "folder"]),
    (["ckpt_path=garbage.ckpt"], ["ckpt_path=garbage.ckpt", "truncated"]),
    (["ckpt_path=code.ckpt"], ["ckpt_path=code.ckpt", "code"]),
    *(
        ([f"ckpt_path={name}.ckpt"], [f"ckpt_path={name}.ckpt", "not written by spectrain"])
        for name in ("foreign", "wrong_config", "wrong_yaml", "wrong_number")
    ),
    (["ckpt_path=3"], ["ckpt_path=3"]),
    # folders
    (["paths.run_dir=full"], ["paths.run_dir=full", "not empty", "no last.ckpt to resume"]),
    (["paths.run_dir=text.png"], ["paths.run_dir=text.png", "file"]),
    (["paths.run_dir=text.png/run"], ["text.png"]),
    (["paths.run_dir=3"], ["paths.run_dir=3"]),
    (["paths.output_dir=null"], ["paths.output_dir=null"]),
    # targets
    (["model._target_=os.system"], ["model._target_=os.system", "torch.nn"]),
    (["model._target_=mylab.Net"], ["model._target_=mylab.Net", "allow_targets=[mylab]"]),
    (["optimizer._target_=torch.optim.Adma"], ["torch.optim.Adma", "Adam"]),
    (["model._target_=null"], ["model._target_"]),
    (["spectral_map._target_=null"], ["spectral_map"]),
    (["allow_targets=mylab"], ["allow_targets", "list"]),
    # settings that a class refuses
    (["optimizer._target_=torch.nn.Linear"], ["optimizer", "torch.nn.Linear"]),
    (["optimizer=adam", "optimizer.betas=[2,3]"], ["optimizer.betas=[2, 3]", "from 0 to below 1"]),
    (["optimizer=sgd", "optimizer.momentum=0"], ["optimizer", "Nesterov"]),
    (["optimizer=lbfgs", "optimizer.line_search_fn=wolfe"], ["optimizer.line_search_fn='wolfe'", "strong_wolfe"]),
    (["optimizer=lbfgs", "guard=true"], ["guard=false"]),
    (["optimizer=gauss_newton"], ["optimizer=gauss_newton", "preconditioner=none"]),
    (["optimizer=esgd", "trainer.gradient_clip_val=1"], ["trainer.gradient_clip_val=1", "optimizer=esgd"]),
    (["preconditioner=grid", "data.holdout=true"], ["preconditioner=grid", "data.holdout=false"]),
    (["baseline=none"], ["baseline='none'", "true or false"]),
    (["+schedule.foo=1"], ["schedule", "foo"]),
    (["+trainer.foo=1"], ["trainer", "foo"]),
    (["+data.foo=1"], ["data", "foo"]),
    (["+model.foo=1"], ["model", "foo"]),
    (["+callbacks.foo=1"], ["callbacks.foo=1"]),
    (["trainer.precision=17"], ["trainer", "17", "32-true"]),
    (["model.activation=rleu"], ["model.activation='rleu'", "relu, tanh, gelu, sine"]),
    (["model=fourier", "model.features=3"], ["model.features=3", "even"]),
    (["spectrum.extension=cubic"], ["spectrum.extension='cubic'", "interpolate"]),
    (["data.holdout=true", "data.size=1"], ["data.holdout"]),
    (["seed=-1"], ["seed=-1"]),
]


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(("words", "said"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_refused_with_one_sentence(words: list[str], said: list[str]) -> None:
    error = call(*words).error
    assert all(part in error for part in said), error


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("key", NUMBERS)
def test_counts(key: str) -> None:
    for value in NOT_COUNTS:
        error = call(f"{key}={value}").error
        assert f"{key}={value}" in error or f"{key}='{value}'" in error, error
        assert "it must be a whole number of at least 1" in error


@pytest.mark.usefixtures("nothing_written")
def test_learning_rates() -> None:
    for value in NOT_RATES:
        error = call(f"optimizer.lr={value}").error
        assert "optimizer.lr=" in error and "a finite number above 0" in error, error


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["ckpt_path", "missing"]),
        (["ckpt_path=none.ckpt"], ["ckpt_path=none.ckpt", "does not exist"]),
        (["ckpt_path=code.ckpt"], ["ckpt_path=code.ckpt"]),
        (["ckpt_path=wrong_config.ckpt"], ["not written by spectrain"]),
        (["ckpt=x"], ["ckpt", "ckpt_path"]),
    ],
)
def test_evaluate_refuses_too(words: list[str], said: list[str]) -> None:
    error = call(*words, program=EVALUATE).error
    assert all(part in error for part in said), error


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(folder)
    return folder / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("size", ["0", "-3", "nan", "2.5", "big"])
def test_evaluate_at_an_impossible_size(checkpoint: Path, size: str) -> None:
    error = call(f"ckpt_path={checkpoint}", f"size={size}", program=EVALUATE).error
    assert "size=" in error and size in error
    assert not (checkpoint.parents[1] / "evaluation").exists()


@pytest.mark.parametrize("program", ["train", EVALUATE])
def test_a_truncated_checkpoint(tmp_path: Path, checkpoint: Path, program: str) -> None:
    data = checkpoint.read_bytes()
    for length in (0, 100, len(data) // 2, len(data) - 1000):
        (tmp_path / "cut.ckpt").write_bytes(data[:length])
        assert "ckpt_path=cut.ckpt" in call("ckpt_path=cut.ckpt", program=program).error
    assert [path.name for path in tmp_path.iterdir()] == ["cut.ckpt"]


@pytest.mark.parametrize(
    "override",
    ["model.width=17", "model=siren", "optimizer=adam", "data.size=13", "seed=1", "spectrum.rank=7", "~preconditioner"],
)
def test_resuming_with_other_settings_is_refused(checkpoint: Path, override: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in checkpoint.parents[1].rglob("*")}
    error = call(f"ckpt_path={checkpoint}", override).error
    assert "cannot be resumed with other settings" in error
    assert override.lstrip("~").partition("=")[0] in error
    assert {path: path.stat().st_mtime_ns for path in checkpoint.parents[1].rglob("*")} == before


def test_a_folder_that_holds_another_run_is_left_alone(tmp_path: Path, checkpoint: Path) -> None:
    folder = checkpoint.parents[1]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    error = call(*TINY, f"paths.run_dir={folder}").error
    assert "not empty" in error and f"ckpt_path={folder}/checkpoints/last.ckpt" in error
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    for switch in ("debug=true", "show_traceback=true"):
        outcome = call("data.path=text.png", switch)
        assert outcome.code == 2
        assert "Traceback" in outcome.err and outcome.err.count("\nerror:") == 1


def test_nan_in_the_loss_names_step_checkpoint_and_advice(tmp_path: Path) -> None:
    words = (*TINY, "optimizer=sgd", "trainer.max_steps=400", "preconditioner=none", "paths.run_dir=r")
    error = call(*words, "optimizer.lr=40", "schedule=warmup_cosine", "schedule.warmup_steps=380").error
    assert "The loss is" in error and "at step" in error and "optimizer.lr" in error
    assert "r/checkpoints/last.ckpt" in error
    state = load(tmp_path / "r" / "checkpoints" / "last.ckpt")
    assert 0 < state["global_step"] < 400
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())


PROGRAMS: list[tuple[list[str], str, int]] = [
    ([str(ROOT / "scripts" / "train.py"), "model.wdith=3"], "error: the key model.wdith does not exist", 2),
    (["-c", "from spectrain.cli.evaluate import main; main()"], "error: ckpt_path is missing", 2),
]


@pytest.mark.parametrize(("words", "said", "code"), PROGRAMS)
def test_the_scripts_themselves(tmp_path: Path, words: list[str], said: str, code: int) -> None:
    environment: Any = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.startswith(said) and len(done.stderr.splitlines()) == 1
    assert done.stdout == "" and list(tmp_path.iterdir()) == []
