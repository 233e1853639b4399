"""`spectral_map=auto` becomes a map before anything else is built, and says which."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import nn

from spectrain import SpectrainWarning
from spectrain.cli import build
from spectrain.cli.choose_map import affordable_maps, choose_map, is_auto, overrides, suggestion_for
from spectrain.cli.config_dir import config_dir
from spectrain.cli.validation import validate
from spectrain.data import TableDataModule
from spectrain.errors import InputError
from spectrain.kernels import empirical_ntk
from spectrain.preconditioners import SamplePreconditioner
from spectrain.spectral_maps import flatten, identity, power

T = torch.linspace(-1, 1, 60)[:, None]


class Data:
    """Sixty points on a line and a target of one frequency."""

    in_features, out_features, target_mean = 1, 1, torch.zeros(1)
    train_x = T
    train_y = torch.sin(9 * T)
    loss = staticmethod(torch.nn.functional.mse_loss)


def config(*words: str) -> DictConfig:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose(
            "train", ["model.width=64", "spectrum.rank=20", "trainer.max_steps=30", "spectral_map=auto", *words]
        )


def network(cfg: DictConfig) -> nn.Module:
    torch.manual_seed(0)
    return build.build_network(cfg, Data())


def test_the_line_that_is_printed_makes_the_same_map(capsys: pytest.CaptureFixture[str]) -> None:
    cfg = config()
    net = network(cfg)
    expected, _ = suggestion_for(cfg, Data(), net)
    before = torch.get_rng_state()
    choose_map(cfg, Data(), net)
    assert torch.equal(before, torch.get_rng_state())
    (line,) = capsys.readouterr().out.splitlines()
    assert repr(expected.spectral_map) in line
    assert expected.spectral_map != identity()
    typed = line.rpartition("the same again: ")[2].split()
    assert cfg.spectral_map == config(*typed).spectral_map
    validate(cfg)
    S = build.build(cfg, "preconditioner")
    assert isinstance(S, SamplePreconditioner)
    assert S.spectral_map == expected.spectral_map
    choose_map(cfg, Data(), net)  # a chosen map stays
    assert capsys.readouterr().out == ""


def test_noise_is_left_to_the_kernel_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    class Noise(Data):
        train_y = torch.randn(60, 1, generator=torch.Generator().manual_seed(0))

    cfg = config()
    choose_map(cfg, Noise(), network(cfg))
    assert cfg.spectral_map == {"_target_": "spectrain.spectral_maps.identity"}
    assert "identity()" in capsys.readouterr().out


def test_without_a_preconditioner_it_warns_and_chooses_nothing() -> None:
    cfg = config("preconditioner=none")
    with pytest.warns(SpectrainWarning, match="no effect with preconditioner=none"):
        choose_map(cfg, Data(), network(cfg))
    assert is_auto(cfg)


def test_a_map_that_was_named_is_left_alone() -> None:
    cfg = config("spectral_map=flatten")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose_map(cfg, Data(), network(cfg))
    assert cfg.spectral_map._target_ == "spectrain.spectral_maps.flatten"


def test_too_few_points_are_said() -> None:
    class Few(Data):
        train_x, train_y = T[:12], T[:12]

    with pytest.raises(InputError, match="12 points are too few to choose a spectral map from"):
        choose_map(config(), Few(), network(config()))


def test_the_kernel_is_a_mean_over_initialisations() -> None:
    cfg = config()
    net = network(cfg)
    _, K = suggestion_for(cfg, Data(), net)
    kernels = [empirical_ntk(net, T).detach()]
    for seed in range(1, 5):
        torch.manual_seed(seed)
        kernels.append(empirical_ntk(build.build_network(cfg, Data()), T).detach())
    torch.testing.assert_close(K, torch.stack(kernels).mean(0))


def test_overrides_name_the_map_and_its_settings() -> None:
    assert overrides(power(0.5, 16)) == ["spectral_map=power", "spectral_map.alpha=0.5", "spectral_map.rank=16"]
    assert overrides(identity()) == ["spectral_map=identity"]


def test_cuts_stay_below_the_modes_that_are_computed() -> None:
    maps = affordable_maps(64, 1000)
    assert maps[0] == identity()
    assert {g.rank for g in maps[1:]} == {4, 16, 63}  # type: ignore[attr-defined]
    assert flatten(10) in affordable_maps(64, 20)
    assert affordable_maps(1, 1000) == [identity()]


def test_a_way_that_cannot_count_modes_is_refused_before_anything_is_computed() -> None:
    with pytest.raises(InputError, match="preconditioner=batch cannot count them"):
        choose_map(config("preconditioner=batch"), None, nn.Identity())


def test_another_loss_than_the_predicted_one_is_said() -> None:
    class Classes(Data):
        loss = staticmethod(torch.nn.functional.cross_entropy)

    cfg = config()
    with pytest.warns(SpectrainWarning, match="another loss: take it as a hint"):
        suggestion_for(cfg, Classes(), network(cfg))  # of spectrain-suggest and of spectral_map=auto alike


def test_a_grid_is_asked_of_the_data_themselves(tmp_path: Path) -> None:
    """A class of the user's own is no picture either, whatever its name."""
    np.savetxt(tmp_path / "x.csv", np.random.default_rng(0).normal(size=(40, 3)), delimiter=",")
    words = ["preconditioner=grid", "data=table", f"data.path={tmp_path}/x.csv"]
    cfg = config(*words)
    cfg.data._target_ = f"{__name__}.MyTable"
    with pytest.raises(InputError, match="their grid_shape is None"):
        build.build_field(cfg)
    cfg.preconditioner._target_ = None
    assert build.build_field(cfg).grid_shape is None


class MyTable(TableDataModule):
    """Somebody's own."""
