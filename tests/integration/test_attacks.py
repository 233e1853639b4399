"""Files from a stranger that want to run code: refused, and nothing has run."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from program import TINY, call, load, train

HACKED = "hacked"


class Attack:
    """Unpickling it makes a file."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (HACKED,)


@pytest.fixture(autouse=True)
def nothing_has_run(tmp_path: Path, clean_process: None) -> Iterator[None]:
    yield
    assert not (tmp_path / HACKED).exists()


def test_the_attack_works_where_it_is_let() -> None:
    pickle.loads(pickle.dumps(Attack()))
    assert Path(HACKED).is_dir()
    Path(HACKED).rmdir()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(folder, "trainer.max_steps=3")
    return folder / "checkpoints" / "last.ckpt"


def place(found: Any) -> None:
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/config.yaml").write_text("of a run\n")
    torch.save(found, "run/checkpoints/last.ckpt")


@pytest.mark.parametrize("program", ["train", "evaluate"])
@pytest.mark.parametrize("where", ["alone", "in_the_callbacks", "raw", "legacy", "object_array"])
def test_a_pickle_in_a_checkpoint(checkpoint: Path, where: str, program: str) -> None:
    found = load(checkpoint)
    if where == "in_the_callbacks":
        found["callbacks"]["RunHistory"]["rows"].append({"step": Attack()})
    if where == "object_array":
        found["state_dict"]["network.0.weight"] = np.array([Attack()], dtype=object)
    place({"a": Attack()} if where == "alone" else found)
    if where == "raw":
        Path("run/checkpoints/last.ckpt").write_bytes(pickle.dumps(Attack()))
    if where == "legacy":
        torch.save({"a": Attack()}, "run/checkpoints/last.ckpt", _use_new_zipfile_serialization=False)
    error = call("ckpt_path=run/checkpoints/last.ckpt", program=program).error
    assert "not a checkpoint that can be loaded safely" in error and "holds code" in error


TARGET = {"_target_": "os.mkdir", "_args_": [HACKED]}
PARTIAL = {**TARGET, "_partial_": True}
# Where a configuration may hold one.
PLACES: dict[str, Any] = {
    "model": {**TARGET, "adaptive_lr": 0.01},
    "optimizer": PARTIAL,
    "callbacks.more": TARGET,
    "callbacks.checkpoint.filename": TARGET,
    "trainer.plugins": [TARGET],
    "data.path": TARGET,
    "preconditioner.spectral_map": {"_target_": "spectrain.spectral_maps.power", "alpha": {"deep": [{"er": TARGET}]}},
    "spectral_map": {"_target_": "functools.partial", "_args_": [{"_target_": "os.mkdir", "_partial_": True}, HACKED]},
    "schedule": {"_target_": "hydra.utils.get_method", "path": "os.mkdir"},
    "logger": {"_target_": "hydra.utils.instantiate", "config": TARGET},
    "nowhere": {"a": [{"b": TARGET}]},
    "model.activation": {"_target_": "torch.nn.modules.module.torch.load", "f": "x"},
}


@pytest.mark.parametrize("key", [*PLACES])
def test_a_target_in_the_configuration_of_a_checkpoint(checkpoint: Path, key: str) -> None:
    found = load(checkpoint)
    config = OmegaConf.create(found["config"])
    OmegaConf.update(config, key, PLACES[key], merge=False, force_add=True)
    OmegaConf.update(config, "allow_targets", ["os", "functools", "hydra"], force_add=True)  # it allows itself all
    found["config"] = OmegaConf.to_yaml(config)
    place(found)
    for program in ("train", "evaluate"):
        error = call("ckpt_path=run/checkpoints/last.ckpt", program=program).error
        assert "is refused" in error or "it must be" in error, error


@pytest.mark.parametrize("key", [*PLACES])
def test_a_target_in_an_experiment(key: str) -> None:
    folder = Path("mine/experiment")
    folder.mkdir(parents=True)
    config = OmegaConf.create({})
    OmegaConf.update(config, key, PLACES[key], force_add=True)
    (folder / "evil.yaml").write_text("# @package _global_\n" + OmegaConf.to_yaml(config))
    error = call("--config-dir=mine", "experiment=evil", *TINY).error
    assert "is refused" in error or "it must be" in error, error
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["hydra.sweeper._target_=os.mkdir"],
        ["hydra.launcher._target_=os.mkdir"],
        ["+hydra.callbacks.a._target_=os.mkdir", "+hydra.callbacks.a.path=hacked"],
        ["+hydra.callbacks={a:{_target_:os.mkdir,path:hacked}}"],
        ["+hydra.job_logging.handlers.a.class=os.mkdir"],
        ["+hydra.job_logging.handlers.a={'()':os.mkdir}"],
    ],
    ids=" ".join,
)
def test_the_settings_of_hydra(words: list[str]) -> None:
    """Hydra makes its own objects before the program's configuration is looked at."""
    assert "hydra." in call(*words, *TINY).error


HYDRA = {
    "callback": {"callbacks": {"a": TARGET}},
    "sweeper": {"sweeper": {"_target_": "os.mkdir"}},
    "factory": {"job_logging": {"version": 1, "handlers": {"a": {"()": "os.mkdir", "path": HACKED}}}},
    "class": {"job_logging": {"version": 1, "handlers": {"a": {"class": "os.mkdir", "path": HACKED}}}},
    "interpolated": {"callbacks": {"a": {"_target_": "${oc.env:HOME}", "_args_": [HACKED]}}},
}


@pytest.mark.parametrize("how", [*HYDRA])
def test_a_hydra_section_in_an_experiment_is_checked(how: str) -> None:
    folder = Path("mine/experiment")
    folder.mkdir(parents=True)
    text = OmegaConf.to_yaml(OmegaConf.create({"hydra": HYDRA[how]}))
    (folder / "evil.yaml").write_text("# @package _global_\n" + text)
    error = call("--config-dir=mine", "experiment=evil", *TINY, "paths.run_dir=r").error
    assert "hydra." in error and "is refused" in error
    assert not Path("r").exists()


@pytest.mark.parametrize("kind", ["png", "npy", "npz"])
def test_an_array_of_objects_as_a_picture(kind: str) -> None:
    with Path(f"evil.{kind}").open("wb") as file:
        save = np.savez if kind == "npz" else np.save
        save(file, np.array([Attack()], dtype=object))
    assert "not an image" in call(f"data.path=evil.{kind}").error


def test_yaml_tags_make_no_objects() -> None:
    folder = Path("mine/experiment")
    folder.mkdir(parents=True)
    (folder / "evil.yaml").write_text(f"# @package _global_\nseed: !!python/object/apply:os.mkdir ['{HACKED}']\n")
    assert call("--config-dir=mine", "experiment=evil").code == 2
