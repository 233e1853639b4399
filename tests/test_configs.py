"""Every file in conf/ composes, resolves, is accepted, and makes what it names."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from spectrain import SamplePreconditioner
from spectrain.cli import build
from spectrain.cli.allowlist import check_targets, targets
from spectrain.cli.choose_map import is_auto
from spectrain.cli.config_dir import config_dir
from spectrain.cli.rules import OF_EVALUATION, RULES
from spectrain.cli.validation import validate
from spectrain.metrics import ImageMetrics

CONF = Path(__file__).parents[1] / "conf"
FILES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml"))
ROOTS = ("compare", "evaluate", "train")
# "hydra/default" is part of every root and cannot be chosen on the command line; a race belongs to another root.
CHOICES = [name for name in FILES if "/" in name and not name.startswith(("hydra/", "race/"))]
RACES = [name.split("/")[1] for name in FILES if name.startswith("race/")]


def of_group(group: str) -> Any:
    return pytest.mark.parametrize("choice", [c.split("/")[1] for c in CHOICES if c.startswith(f"{group}/")])


@pytest.fixture(autouse=True)
def hydra_compose() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def accepted(*overrides: str, name: str = "train") -> DictConfig:
    """Compose, resolve every interpolation, validate, check every target."""
    cfg = compose(name, list(overrides))
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    validate(cfg, OF_EVALUATION if name == "evaluate" else None)
    check_targets(cfg)
    for key, target in targets(OmegaConf.to_container(cfg, resolve=True)):
        assert target is None or callable(get_object(target)), key
    return cfg


def test_the_program_uses_these_files() -> None:
    assert config_dir().resolve() == CONF.resolve()


def test_every_file_is_seen() -> None:
    groups = {name.split("/")[0] for name in CHOICES}
    assert {"data", "model", "optimizer", "schedule", "preconditioner", "spectral_map", "spectrum"} <= groups
    assert {"callbacks", "logger", "trainer", "paths", "experiment", "debug"} <= groups
    assert [name for name in FILES if "/" not in name] == sorted(ROOTS), "a new root needs its own test here"


@pytest.mark.parametrize("name", ROOTS)
def test_the_defaults_are_accepted(name: str) -> None:
    accepted(name=name)


@pytest.mark.parametrize("race", RACES)
def test_a_race_tells_the_training_program_what_it_accepts(race: str) -> None:
    cfg = accepted(f"race={race}", name="compare")
    for task in cfg.race.tasks.values():
        for method in cfg.race.methods.values():
            accepted(*cfg.race.common, *task, *method)
    assert 0 < len(cfg.race.baselines) < len(cfg.race.methods), "a race needs baselines and others"
    assert {*cfg.race.baselines} <= {*cfg.race.methods}


def words(choice: str) -> list[str]:
    """A choice as a person types it; Gauss-Newton is a preconditioner itself and takes no other."""
    alone = ["preconditioner=none"] if choice == "optimizer/gauss_newton" else []
    return [choice.replace("/", "=", 1), *alone]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_is_accepted(choice: str) -> None:
    cfg = accepted(*words(choice))
    if not choice.startswith(("experiment/", "debug/")):
        group = choice.split("/")[0]
        own = yaml.safe_load((CONF / f"{choice}.yaml").read_text())
        missing = set(own.get(group, own)) - {"defaults"} - set(cfg[group])
        assert not missing, f"{choice} is not where the program looks for it"


@pytest.mark.parametrize("name", [c for c in CHOICES if c.startswith(("experiment/", "debug/"))])
def test_experiments_and_presets_override_what_exists(name: str) -> None:
    """An override of a key that no default has is a slip of the pen, which Hydra lets pass inside a file."""
    changed = accepted(name.replace("/", "=", 1))
    known = accepted(f"data={data_choice(changed.data._target_)}")
    text = (CONF / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_")
    assert known != changed, f"{name} changes nothing"
    # A Trainer has arguments that its file leaves at their defaults, such as the profiler; weights are named by the
    # equation's conditions, and `Problem` refuses other names.
    foreign = set(keys(OmegaConf.to_container(changed))) - set(keys(OmegaConf.to_container(known)))
    own = ("trainer.", "model.", "optimizer.", "preconditioner.", "logger.", "data.equation.", "data.weights.", "study")
    assert all(key.startswith(own) for key in foreign), foreign


@pytest.mark.parametrize("name", [c for c in CHOICES if c.startswith("experiment/")])
def test_a_paper_size_is_another_size(name: str) -> None:
    """Of the experiments; photograph_* and the equations have one size, and say so."""
    word = name.replace("/", "=", 1)
    default, paper = (OmegaConf.to_container(accepted(word, *more), resolve=True) for more in ((), ("size=paper",)))
    one_size = name.startswith(("experiment/photograph_", "experiment/pinn_"))
    assert (default | {"size": "paper"} == paper) == one_size  # type: ignore[operator]


def data_choice(target: str) -> str:
    """The file of conf/data that names a data module."""
    names = [name.split("/")[1] for name in CHOICES if name.startswith("data/")]
    return next(name for name in names if f"_target_: {target}\n" in (CONF / f"data/{name}.yaml").read_text())


def keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, child in node.items():
            yield f"{prefix}{name}"
            yield from keys(child, f"{prefix}{name}.")


@of_group("model")
def test_any_optimizer_goes_with_any_model(choice: str) -> None:
    """The rate follows the model."""
    for optimizer in (c for c in CHOICES if c.startswith("optimizer/")):
        validate(compose("train", [f"model={choice}", *words(optimizer)]))


def test_the_table_of_rules_knows_every_number_and_switch_of_the_defaults() -> None:
    """A number that nobody checks is how a negative one gets into a run; any word but false switches a switch on."""
    unchecked = set()
    groups = ("data", "model", "optimizer", "schedule", "preconditioner", "spectral_map", "spectrum", "trainer")
    of_interest = ("data/", "model/", "optimizer/", "preconditioner/", "spectral_map/")
    for choice in (c for c in CHOICES if c.startswith(of_interest) and c != "data/pde"):
        cfg: Any = OmegaConf.to_container(accepted(*words(choice)), resolve=True)
        keys = {f"{group}.{name}": value for group in groups for name, value in cfg[group].items()}
        for key, value in (keys | cfg).items():
            if isinstance(value, int | float) and key not in RULES:
                unchecked.add(key)
    # max_steps of a schedule is the trainer's; devices are the Trainer's own to refuse.
    # data.target may be a name or a number: the data module refuses what is no column.
    assert unchecked <= {
        "data.target",
        "schedule.max_steps",
        "trainer.devices",
        "optimizer._partial_",
        "schedule._partial_",
    }


@of_group("model")
def test_models(choice: str) -> None:
    cfg = accepted(f"model={choice}", "model.width=8", "model.depth=1")

    class Data:
        in_features, out_features, target_mean = 2, 3, torch.tensor([0.1, -0.2, 0.3])

    network = build.build_network(cfg, Data())
    assert network(torch.randn(5, 2)).shape == (5, 3)
    last = next(m for m in reversed(list(network.modules())) if getattr(m, "bias", None) is not None)
    assert torch.allclose(last.bias * getattr(last, "bias_scale", 1.0), Data.target_mean)


@of_group("optimizer")
@pytest.mark.parametrize("model", ["mlp", "siren"])
def test_optimizers(choice: str, model: str) -> None:
    if choice == "gauss_newton":
        pytest.skip("it takes a residual vector, see the next test")
    cfg = accepted(f"optimizer={choice}", f"model={model}")
    network = torch.nn.Linear(2, 2)
    optimizer = build.build(cfg, "optimizer")(network.parameters())
    assert optimizer.param_groups[0]["lr"] == pytest.approx(cfg.optimizer.lr)
    before = network.weight.detach().clone()

    def backward(loss: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss.backward()
        return loss

    for _ in range(3):  # SOAP's first step only fills its statistics
        optimizer.step(lambda: backward(network(torch.ones(4, 2)).square().mean()))
    assert torch.isfinite(network.weight).all() and not torch.equal(before, network.weight)


def test_gauss_newton() -> None:
    cfg = accepted("optimizer=gauss_newton", "preconditioner=none", "optimizer.mu=1e-6")
    optimizer = build.build(cfg, "optimizer")
    w = torch.nn.Parameter(torch.ones(2))
    made = optimizer([w])
    made.step(lambda: torch.stack([w[0] - 3, 2 * w[1]]))
    assert made.param_groups[0]["mu"] == 1e-6
    assert torch.allclose(w, torch.tensor([3.0, 0.0]), atol=1e-3)


@of_group("schedule")
def test_schedules(choice: str) -> None:
    cfg = accepted(f"schedule={choice}", "trainer.max_steps=40")
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    schedule = build.build(cfg, "schedule")(optimizer)
    rates = []
    for _ in range(41):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) == pytest.approx(1.0)
    assert (rates[0] < 0.1) == choice.startswith("warmup")
    assert rates[-1] == pytest.approx(0.0 if "cosine" in choice else 1.0, abs=1e-12)


@of_group("spectral_map")
def test_maps(choice: str) -> None:
    cfg = accepted(f"spectral_map={choice}")
    if choice == "auto":  # a map only once there are data; tests/unit/cli/test_choose_map.py
        assert is_auto(cfg)
        return
    if choice == "power":
        cfg.spectral_map.alpha = 0.5
    S = build.build(cfg, "preconditioner")
    assert isinstance(S, SamplePreconditioner)
    k = cfg.spectrum.rank  # as many eigenvalues as a run gives it
    assert (S.spectral_map(torch.linspace(2, 1, k, dtype=torch.float64)) > 0).all()
    if choice not in ("identity", "flatten", "power"):
        return
    ratio = S.spectral_map(torch.tensor([16.0, 4.0, 1.0], dtype=torch.float64))
    expected = {"identity": [1, 1, 1], "flatten": [1 / 16, 1 / 4, 1], "power": [1 / 4, 1 / 2, 1]}
    assert ratio.tolist() == pytest.approx(expected[choice])


@of_group("preconditioner")
def test_preconditioners(choice: str) -> None:
    made = build.build(accepted(f"preconditioner={choice}"), "preconditioner")
    assert (made is None) == (choice == "none")


def test_the_parameter_side_takes_fewer_modes_landmarks_and_refreshes_where_none_are_given() -> None:
    def spectrum(*words: str) -> tuple[int, int, int]:
        cfg = accepted(*words)
        return cfg.spectrum.rank, cfg.callbacks.spectrum.subset_size, cfg.callbacks.spectrum.every_n_steps

    assert spectrum() == spectrum("preconditioner=grid") == (128, 576, 20)
    assert spectrum("preconditioner=parameter", "optimizer=sgd") == (64, 256, 40)
    assert spectrum("spectrum.rank=32", "preconditioner=parameter", "optimizer=sgd") == (32, 256, 40)


def test_power_has_the_exponent_that_suits_the_preconditioner() -> None:
    assert accepted().spectral_map.alpha == 0.7
    assert accepted("preconditioner=batch").spectral_map.alpha == 0.4
    assert accepted("preconditioner=batch", "spectral_map.alpha=0.5").spectral_map.alpha == 0.5


@of_group("trainer")
def test_trainers(choice: str, tmp_path: Path) -> None:
    cfg = accepted(f"trainer={choice}", f"paths.run_dir={tmp_path}")
    if choice == "gpu" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    assert build.build_trainer(cfg, []).max_steps == 300


def test_callbacks(tmp_path: Path) -> None:
    cfg = accepted(f"paths.run_dir={tmp_path}")
    build.choose_monitor(cfg, ImageMetrics.quality)
    made = build.build_callbacks(cfg)
    assert [type(callback).__name__ for callback in made] == ["SpectrumCallback", "ModelCheckpoint", "ModelCheckpoint"]


def test_comments_in_files_name_what_exists() -> None:
    """`relu | tanh | gelu | sine` beside a key lists what is allowed; the rule of that key must agree."""
    for choice in CHOICES:
        for line in (CONF / f"{choice}.yaml").read_text().splitlines():
            found = re.match(r"(\w+): \S+\s+# (\w+(?: \| \w+)+)", line)
            rule = RULES.get(f"{choice.split('/')[0]}.{found[1]}") if found else None
            if found and rule:
                assert all(rule.accepts(word) for word in found[2].split(" | ")), line


def test_targets_are_instantiated_with_plain_containers() -> None:
    cfg = accepted("optimizer=adam")
    partial = build.build(cfg, "optimizer")
    assert isinstance(partial, functools.partial)
    assert type(partial.keywords["betas"]) is list
    assert type(instantiate(cfg.optimizer).keywords["betas"]) is not list  # why build() converts
