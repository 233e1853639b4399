"""The table of allowed values, key by key."""

import warnings
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from spectrain.cli.rules import RULES
from spectrain.cli.validation import validate
from spectrain.errors import InputError, SpectrainWarning

GOOD: dict[str, Any] = {
    "seed": 0,
    "figures": True,
    "allow_targets": [],
    "data": {"size": 64, "batch_size": None, "grayscale": False},
    "model": {
        "_target_": "spectrain.models.mlp",
        "width": 256,
        "depth": 3,
        "scale": 5.0,
        "omega": 30,
        "activation": "relu",
        "parameterization": "ntk",
        "bias_scale": 0,
        "center_output": True,
    },
    "optimizer": {"_target_": "pytorch_optimizer.SOAP", "lr": 1e-2},
    "schedule": {"warmup_steps": 0},
    "trainer": {"max_steps": 300, "val_check_interval": 25, "gradient_clip_val": None},
    "spectrum": {"rank": 64, "subset_size": 1024, "every_n_steps": 20, "extension": "auto"},
    "spectral_map": {"_target_": "spectrain.spectral_maps.power", "alpha": 0.5, "rank": None},
}


def config(**changes: Any) -> DictConfig:
    cfg = OmegaConf.create(GOOD)
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True, merge=False)
    OmegaConf.set_struct(cfg, True)
    return cfg


def changed(key: str, value: Any) -> DictConfig:
    return config(**{key.replace(".", "__"): value})


def test_the_defaults_pass() -> None:
    validate(config())


def test_what_is_absent_is_not_missed() -> None:
    validate(OmegaConf.create({}))
    validate(OmegaConf.create({"model": None, "spectrum": {"rank": 3}}))


POSITIVE_INTS = [
    "model.width", "model.depth", "trainer.max_steps", "trainer.val_check_interval", "spectrum.rank",
    "spectrum.subset_size", "spectrum.every_n_steps",
]  # fmt: skip
SIZES = [None, 1, 64, [12, 16]]
NO_SIZES = [0, -1, 1.5, "64", True, float("nan"), [12], [12, 0], [12, 1.5], [1, 2, 3], {"a": 1}]
POSITIVE_FLOATS = ["optimizer.lr", "model.scale", "model.omega", "model.weight_scale"]
NOT_POSITIVE = [0, -1, -0.5, float("nan"), float("inf"), float("-inf"), "many", "", True, False, None, [1], {"a": 1}]


@pytest.mark.parametrize("size", SIZES, ids=repr)
def test_a_size_is_a_side_or_both_or_the_files_own(size: Any) -> None:
    validate(changed("data.size", size))


@pytest.mark.parametrize("size", NO_SIZES, ids=repr)
def test_other_sizes_are_refused(size: Any) -> None:
    with pytest.raises(InputError, match=r"data.size=.*\[rows, columns\]"):
        validate(changed("data.size", size))


@pytest.mark.parametrize("key", POSITIVE_INTS)
@pytest.mark.parametrize("value", [*NOT_POSITIVE, 2.5, 3.0, "3", "1e2"], ids=repr)
def test_a_count_is_a_whole_number_above_0(key: str, value: Any) -> None:
    with pytest.raises(InputError, match="must be a whole number of at least 1") as caught:
        validate(changed(key, value))
    assert str(caught.value).startswith(f"{key}=")


@pytest.mark.parametrize("key", POSITIVE_FLOATS)
@pytest.mark.parametrize("value", [*NOT_POSITIVE, "0.1", "1e-2x", "-1e-2", "1e999"], ids=repr)
def test_a_rate_is_finite_and_above_0(key: str, value: Any) -> None:
    with pytest.raises(InputError, match="must be a finite number above 0") as caught:
        validate(changed(key, value))
    assert str(caught.value).startswith(f"{key}=")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.tolerance_grad", -1e-9),
        ("optimizer.tolerance_change", float("nan")),
        ("study.seconds", 0),
        ("study.seconds", "long"),
        ("study.warmup", 1.5),
        ("study.few", 0),
        ("study.seeds", [-1]),
        ("study.networks", "mlp"),
        ("study.optimizers", [1]),
        ("seed", -1),
        ("seed", 2**32),
        ("seed", 1.5),
        ("seed", "zero"),
        ("seed", None),
        ("data.batch_size", 0),
        ("data.batch_size", -4),
        ("data.batch_size", 0.5),
        ("data.batch_size", "all"),
        ("data.grayscale", "yes"),
        ("data.grayscale", 1),
        ("data.weights", "kernel"),
        ("data.hard", "boundary"),
        ("data.weights", {"boundary": "abc"}),
        ("data.weights", {"boundary": [1]}),
        ("data.weights", {"boundary": None}),
        ("data.weights", {"boundary": True}),
        ("data.weights", {"boundary": 0}),
        ("data.weights", {"boundary": 10, "initial": float("inf")}),
        ("model.center_output", None),
        ("model.activation", "rleu"),
        ("model.activation", None),
        ("model.parameterization", "NTK"),
        ("model.bias_scale", -0.1),
        ("trainer.gradient_clip_val", 0),
        ("trainer.gradient_clip_val", float("nan")),
        ("schedule.warmup_steps", -1),
        ("schedule.hold", 1),
        ("schedule.hold", -0.1),
        ("schedule.hold", "half"),
        ("spectrum.extension", "linear"),
        ("spectrum.extension", 3),
        ("spectral_map.alpha", -0.1),
        ("spectral_map.alpha", float("inf")),
        ("spectral_map.alpha", float("nan")),
        ("spectral_map.alpha", True),
        ("spectral_map.rank", 0),
        ("spectral_map.rank", 2.0),
        ("allow_targets", "mylab"),
        ("allow_targets", None),
        ("allow_targets", [1]),
    ],
)
def test_other_bad_values(key: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        validate(changed(key, value))
    assert str(caught.value).startswith(f"{key}=")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 2**32 - 1),
        ("data.batch_size", 1),
        ("data.weights", "trace"),
        ("data.weights", {"boundary": 10, "initial": 0.5}),
        ("data.weights", {}),
        ("model.bias_scale", 0.0),
        ("optimizer.lr", 1),
        ("spectral_map.alpha", 0),
        ("spectral_map.rank", 63),
        ("spectrum.extension", "nystrom"),
        ("spectrum.rank", 1024),
        ("trainer.gradient_clip_val", 1.0),
    ],
)
def test_good_values(key: str, value: Any) -> None:
    validate(changed(key, value))


def test_scientific_notation_in_quotes_becomes_a_number() -> None:
    cfg = changed("optimizer.lr", "1e-2")
    validate(cfg)
    assert cfg.optimizer.lr == 0.01


def test_a_rank_above_the_subset_is_refused() -> None:
    with pytest.raises(InputError, match=r"spectrum\.rank=65 is larger than spectrum\.subset_size=64"):
        validate(config(spectrum__rank=65, spectrum__subset_size=64))
    validate(config(spectrum__rank=64, spectrum__subset_size=64))


def test_a_map_that_cuts_where_there_is_no_eigenvalue_is_refused() -> None:
    with pytest.raises(InputError, match=r"spectral_map\.rank=64 is not below spectrum\.rank=64"):
        validate(config(spectral_map__rank=64))


def test_a_whole_number_written_with_a_point_gets_a_hint() -> None:
    with pytest.raises(InputError, match="write 1000 instead"):
        validate(changed("trainer.max_steps", 1e3))


def test_interpolations_are_followed() -> None:
    validate(changed("spectrum.rank", "${data.size}"))
    with pytest.raises(InputError, match=r"spectrum\.rank=-3"):
        validate(config(spectrum__rank="${own}", own=-3))
    with pytest.raises(InputError, match=r"spectrum\.rank cannot be computed"):
        validate(changed("spectrum.rank", "${no.such.key}"))


def test_a_class_of_ones_own_gives_its_keys_their_own_meaning() -> None:
    validate(config(model___target_="mylab.Net", model__width=[3, 4], model__activation="swish"))
    with pytest.raises(InputError):
        validate(config(model___target_="mylab.Net", spectrum__rank=0))


def test_the_table_is_in_an_order_in_which_causes_come_first() -> None:
    keys = list(RULES)
    assert keys.index("model.width") < keys.index("model.adaptive_lr") < keys.index("optimizer.lr")


def test_an_automatic_rate_is_for_gradient_descent_and_warns_on_the_parameter_side() -> None:
    auto = {"optimizer__lr": "auto"}
    with pytest.raises(InputError, match="optimizer=sgd"):
        validate(config(**auto))
    validate(config(**auto, optimizer___target_="torch.optim.SGD"))
    parameter = {"preconditioner": {"_target_": "spectrain.ParameterPreconditioner"}}
    with pytest.warns(SpectrainWarning, match="preconditioner=sample"):
        validate(config(**auto, optimizer___target_="torch.optim.SGD", **parameter))
    with pytest.warns(SpectrainWarning, match="slower than no preconditioner"):
        validate(config(optimizer__scale_free=True, **parameter))
    with pytest.raises(InputError, match="or auto"):
        validate(config(optimizer__lr="fast"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.size", ["???", 12]),
        ("model.width", "???"),
        ("data.weights", {"boundary": "???"}),
        ("logger", {"tags": [["a", "???"]]}),
    ],
)
def test_a_value_that_is_missing_is_named(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"{key}.*=\?\?\? is a value that is still missing; give one: {key}"):
        validate(config(**{key: value}))


def test_a_paper_size_that_nothing_has_is_said() -> None:
    with pytest.warns(SpectrainWarning, match="size=paper has no effect"):
        validate(config(size="paper"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        validate(config(size="paper", data__size="${sized:64,128}"))
        validate(config(size="default"))
