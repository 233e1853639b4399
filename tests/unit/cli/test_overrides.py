"""Every mistake on the command line becomes one sentence with the nearest name; everything that works still works."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from spectrain.cli.nearest import nearest
from spectrain.cli.overrides import check_overrides, normalize
from spectrain.errors import InputError

FILES = {
    "train.yaml": """
defaults:
  - _self_
  - data: image
  - model: mlp
  - optimizer: soap
  - spectrum: default
  - logger: wandb
  - experiment: null
  - debug: null
seed: 0
ckpt_path: null
copy: ${model.width}
names: [a, b]
""",
    "evaluate.yaml": "size: null\nckpt_path: null\n",
    "data/image.yaml": "path: null\nsize: 64\nseed: ${seed}\n",
    "model/mlp.yaml": "width: 256\ndepth: 3\n",
    "model/siren.yaml": "width: 256\ndepth: 3\nomega: 30.0\n",
    "optimizer/soap.yaml": "lr: 1e-2\nbetas: [0.95, 0.95]\n",
    "optimizer/adam.yaml": "lr: 1e-3\neps: 1e-8\n",
    "spectrum/default.yaml": "rank: 64\nsubset_size: 1024\nevery_n_steps: 20\n",
    "logger/wandb.yaml": "mode: offline\n",
    "logger/none.yaml": "{}\n",
    "debug/traceback.yaml": "# @package _global_\nseed: 1\n",
    "experiment/photograph_128.yaml": (
        "# @package _global_\ndefaults:\n  - override /model: siren\ndata:\n  size: 128\nmodel:\n  omega: 20.0\n"
    ),
    "experiment/broken.yaml": "# @package _global_\nmodel: [\n",
    "experiment/stale.yaml": "# @package _global_\ndefaults:\n  - override /model: gone\n",
    "experiment/alien.yaml": "# @package _global_\ndefaults:\n  - override /modle: mlp\n",
}


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("conf"), FILES)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def check(conf: Path, *words: str, config_name: str = "train") -> None:
    check_overrides(words, conf, config_name)


GOOD: list[Sequence[str]] = [
    [],
    ["model.width=3"],
    ["model=siren", "model.omega=10"],
    ["optimizer=adam", "optimizer.eps=1e-6", "seed=3"],
    ["experiment=photograph_128", "model.omega=3.0"],
    ["debug=traceback"],
    ["data.path='my photo.png'"],
    ["data.path=my photo.png"],
    ["data.path=/tmp/a-b_c.png"],
    ["data.path=null"],
    ["names=[a,b,c]"],
    ["names.0=z"],
    ["+model.extra=3"],
    ["++model.extra=3", "++model.width=4"],
    ["~names"],
    ["~data.size"],
    ["+model.width.x=3"],
    ["hydra.run.dir=/tmp/x"],
    ["hydra/job_logging=none"],
    ["hydra.job.chdir=false"],
    ["copy=${data.size}"],
    ["copy=${hydra:runtime.cwd}"],
    ["copy=${unregistered_resolver:1}"],
    ["-m", "model.width=3,4"],
    ["--multirun", "optimizer=adam,soap"],
    ["-m", "optimizer=adam,soap", "model.width=choice(3,4)", "seed=range(0,10)", "optimizer.lr=interval(1e-4,1e-1)"],
    ["-m", "optimizer=glob(*)"],
    ["-m", "names=[a,b],[c]"],
    ["-m", "data.path='a,b.png','c.png'"],
    ["hydra.mode=MULTIRUN", "model.width=3,4"],
    ["model.width=3", "seed=1,2", "-m"],
    ["--help"],
    ["--help", "model.width=3"],
    ["--hydra-help"],
    ["--cfg", "job"],
    ["--cfg", "job", "--resolve", "-p", "model", "model.width=3"],
    ["--info"],
    ["--info", "searchpath"],
    ["-cn", "evaluate", "size=3"],
]


@pytest.mark.parametrize("words", GOOD, ids=" ".join)
def test_what_hydra_accepts_passes(conf: Path, words: Sequence[str]) -> None:
    check_overrides(words, conf, "train")
    assert not GlobalHydra.instance().is_initialized(), "Hydra's own main comes next"


BAD: list[tuple[Sequence[str], Sequence[str]]] = [
    (["modle.width=3"], ["modle.width does not exist", "Did you mean model.width?"]),
    (["model.wdith=3"], ["model.wdith does not exist", "Did you mean model.width?"]),
    (["width=3"], ["Did you mean model.width?"]),
    (["sed=3"], ["Did you mean seed?"]),
    (["rnak=3"], ["Did you mean spectrum.rank?"]),
    (["spectrum.every=3"], ["spectrum.every does not exist"]),
    (["model.qqq=3"], ["model.qqq does not exist", "Keys of model: width, depth"]),
    (["zzzzzz=3"], ["zzzzzz does not exist", "seed"]),
    (["model.omega=3"], ["model.omega does not exist"]),
    (["optimizer=adam", "optimizer.betas=[1,2]"], ["optimizer.betas does not exist"]),
    (["seed.x=3"], ["seed.x does not exist"]),
    (["names.7=z"], ["names.7 does not exist"]),
    (["~model.nothing"], ["model.nothing does not exist"]),
    (["optimizer=sopa"], ["optimizer=sopa is not one of", "adam, soap", "Did you mean optimizer=soap?"]),
    (["optimizer=xyz"], ["optimizer=xyz is not one of", "adam, soap"]),
    (["optimiser=soap"], ["optimiser does not exist", "Did you mean optimizer?"]),
    (["model=mlpp", "model.width=3"], ["Did you mean model=mlp?"]),
    (["experiment=photograph_12"], ["is not one of the choices of experiment", "experiment=photograph_128?"]),
    (["experiment=broken"], ["while parsing"]),
    (["experiment=stale"], ["model=gone is not one of the choices of model: mlp, siren"]),
    (["experiment=alien"], ["modle"]),
    (["optimizer=null"], ["optimizer=null", "~optimizer"]),
    (["debug=yes"], ["debug=yes is not one of the choices of debug: traceback"]),
    (["model.width"], ["'model.width' has no value", "key=value"]),
    (["model.width", "=", "3"], ["has no value"]),
    (["=3"], ["'=3' cannot be read"]),
    (["model.width=[1,2"], ["'model.width=[1,2' cannot be read", "quotes"]),
    (["data.path=Ann's.png"], ["cannot be read", "quotes"]),
    (["data.path=a;b"], ["cannot be read"]),
    (["model.width={a"], ["cannot be read"]),
    (["model.width=3,4"], ["model.width=3,4 gives several values", "add -m"]),
    (["model.width=choice(3,4)"], ["gives several values", "add -m"]),
    (["seed=range(0,3)"], ["gives several values"]),
    (["-m", "optimizer=adam,sopa"], ["optimizer=sopa is not one of", "Did you mean optimizer=soap?"]),
    (["-m", "optimizer=sopa,adam"], ["optimizer=sopa is not one of"]),
    (["-m", "model=mlp,siren", "model.omega=3"], ["model.omega does not exist"]),
    (["-m", "modle.width=3,4"], ["modle.width does not exist"]),
    (["-m", "optimizer=glob(x*)"], ["gives no value"]),
    (["-m", "hydra.run.dir=a,b"], ["cannot be swept"]),
    (["copy=${model.wdith}"], ["copy cannot be computed", "model.wdith"]),
    (["copy=${oc.env:SPECTRAIN_NO_SUCH_VARIABLE}"], ["copy cannot be computed", "SPECTRAIN_NO_SUCH_VARIABLE"]),
    (["copy=${"], ["copy"]),
    (["+seed=3"], ["seed"]),
    (["hydra/launcher=submitit_slrum"], ["hydra/launcher=submitit_slrum is not one of the choices"]),
    (["hydra.jobb.name=3"], ["hydra.jobb"]),
    (["--multirn", "seed=1"], ["unrecognized arguments: --multirn", "Did you mean --multirun?"]),
    (["--cfg", "jobs"], ["invalid choice", "job"]),
    (["--config-dir", "/nonexistent/folder"], ["--config-dir=/nonexistent/folder is not a folder"]),
    (["--config-name", "trian"], ["trian"]),
    (["--config-path", "/nonexistent/folder"], ["/nonexistent/folder"]),
    (["--cfg", "job", "modle.width=3"], ["Did you mean model.width?"]),
]


@pytest.mark.parametrize(("words", "said"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_a_mistake_is_one_sentence_with_the_nearest_name(conf: Path, words: Sequence[str], said: Sequence[str]) -> None:
    with pytest.raises(InputError) as caught:
        check_overrides(words, conf, "train")
    for part in said:
        assert part in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert not GlobalHydra.instance().is_initialized()


def test_a_config_dir_of_ones_own_adds_choices(conf: Path, tmp_path: Path) -> None:
    own = write(tmp_path, {"optimizer/mine.yaml": "lr: 3\nspecial: 1\n"})
    check(conf, "--config-dir", str(own), "optimizer=mine", "optimizer.special=2")
    with pytest.raises(InputError, match="adam, mine, soap"):
        check(conf, "--config-dir", str(own), "optimizer=min_")


def test_a_searchpath_of_ones_own_adds_choices(conf: Path, tmp_path: Path) -> None:
    own = write(tmp_path, {"optimizer/mine.yaml": "lr: 3\n"})
    check(conf, f"hydra.searchpath=[file://{own}]", "optimizer=mine")


def test_every_value_of_a_sweep_is_tried(conf: Path) -> None:
    with pytest.raises(InputError, match="optimizer=sopa"):
        check(conf, "-m", "seed=1,2,3", "optimizer=adam,soap,sopa")


def test_the_help_of_the_flags_is_left_to_hydra(conf: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        check(conf, "--version")
    assert stop.value.code == 0


def test_flags_may_stand_anywhere(conf: Path) -> None:
    words = ["model.width=3", "-cn", "a=b", "-m", "seed=1,2", "--info", "logger=none"]
    assert normalize(words) == ["model.width=3", "seed=1,2", "logger=none", "-cn", "a=b", "-m", "--info"]
    check(conf, *normalize(["model.width=3", "-m", "seed=1,2"]))
    check(conf, *normalize(["--info", "model.width=3"]))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("debug=true", ["debug=traceback"]),
        ("debug=True", ["debug=traceback"]),
        ("debug=false", []),
        ("experiment=null", []),
    ],
)
def test_debug_is_a_switch_too(typed: str, meant: list[str]) -> None:
    assert normalize([typed, "seed=1", "-m"]) == [*meant, "seed=1", "-m"]


def test_nearest_prefers_the_same_last_part() -> None:
    keys = ["seed", "model.width", "model.depth", "data.size", "paths.width_of_line"]
    assert nearest("network.width", keys) == "model.width"
    assert nearest("data.sise", keys) == "data.size"
    assert nearest("qqqqqq", keys) is None
