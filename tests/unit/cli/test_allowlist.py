"""A `_target_` is a loaded gun in a file from a stranger: what passes, and what must not."""

import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from spectrain.cli.allowlist import check_targets
from spectrain.errors import InputError


def check(target: Any, *allow: str) -> None:
    check_targets(OmegaConf.create({"model": {"_target_": target}}), allow)


@pytest.mark.parametrize(
    "target",
    [
        "spectrain.SamplePreconditioner",
        "spectrain.spectral_maps.power",
        "spectrain.models.mlp",
        "spectrain.data.ImageDataModule",
        "spectrain.lightning.SpectrumCallback",
        "torch.nn.Linear",
        "torch.nn.modules.linear.Linear",
        "torch.nn.functional.gelu",
        "torch.nn.functional.relu",
        "torch.nn.init.kaiming_normal_",
        "torch.optim.Adam",
        "torch.optim.lr_scheduler.CosineAnnealingLR",
        "pytorch_optimizer.SOAP",
        "pytorch_lightning.Trainer",
        "pytorch_lightning.callbacks.ModelCheckpoint",
        "pytorch_lightning.loggers.TensorBoardLogger",
        "pytorch_lightning.plugins.environments.SLURMEnvironment",
        "torchmetrics.image.PeakSignalNoiseRatio",
        None,
    ],
)
def test_what_people_use_passes(target: str | None) -> None:
    check(target)


REFUSED = [
    # elsewhere
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "eval",
    "hydra.utils.get_method",
    "hydra.utils.instantiate",
    "torch.load",
    "torch.hub.load",
    "torch.utils.cpp_extension.load",
    "torch.nnx.Linear",
    "torchmetricsevil.Metric",
    "spectrainevil.run",
    "lightning_fabric.plugins.TorchCheckpointIO",
    # allowed beginnings that walk elsewhere
    "torch.nn.modules.module.warnings.sys.exit",
    "torch.nn.modules.module.warnings.warn",
    "torch.nn.modules.module.torch.load",
    "torch.nn.modules.module.torch.hub.load",
    "torch.optim.optimizer.functools.partial",
    "torch.optim.optimizer.defaultdict",
    "torch.nn.modules.module.functools.reduce",
    "torch.nn.functional.importlib.import_module",
    "torch.nn.functional.torch.load",
    "torch.nn.modules.module.RemovableHandle",
    "torch.nn.functional.handle_torch_function",
    "torch.nn.functional.boolean_dispatch",
    "pytorch_lightning.utilities.imports.importlib.import_module",
    "pytorch_lightning.strategies.launchers.subprocess_script.subprocess.Popen",
    "pytorch_lightning.callbacks.model_checkpoint.os.system",
    "pytorch_lightning.callbacks.model_checkpoint.shutil.rmtree",
    "spectrain.importlib.import_module",
    "spectrain.lightning.module.torch.load",
    "torchmetrics.metric.pickle.loads",
    # defined inside, and able to run what they are told
    "pytorch_lightning.cli.instantiate_class",
    "pytorch_lightning.cli.LightningCLI",
    "pytorch_lightning.core.saving.load_hparams_from_yaml",
    "pytorch_lightning.core.saving.save_hparams_to_yaml",
    "pytorch_lightning.LightningModule.load_from_checkpoint",
    "pytorch_lightning.utilities.upgrade_checkpoint",
    "spectrain.lightning.WideNetworkModule.load_from_checkpoint",
    "spectrain.cli.train.main",
    "spectrain.cli.build.build",
    # private, or not an object at all
    "torch.nn.Linear.__class__",
    "torch.nn.Linear.__init__.__globals__",
    "torch.nn.Linear.__subclasses__",
    "torch.nn.modules.module._addindent",
    "pytorch_lightning.core.saving._load_from_checkpoint",
    "torch.nn",
    "torch",
    "spectrain",
    "torch.nn.",
    ".torch.nn.Linear",
    "torch..nn.Linear",
    "torch.nn.Linear ",
    "torch.nn.Linear()",
    "torch.nn.functional.torch",
    "spectrain.spectral_maps.power.__call__",
    "spectrain.__version__",
    "",
]


@pytest.mark.parametrize("target", REFUSED)
def test_what_must_not_pass(target: str) -> None:
    with pytest.raises(InputError, match=r"^model\._target_"):
        check(target)


@pytest.mark.parametrize("target", [3, 1.5, True, ["os.system"], {"_target_": "os.system"}, {"a": "b"}])
def test_a_target_is_a_text(target: Any) -> None:
    with pytest.raises(InputError, match=r"^model\._target_"):
        check(target)


@pytest.mark.parametrize(
    "hidden",
    [
        {"a": {"b": {"_target_": "os.system"}}},
        {"a": [{"_target_": "torch.nn.ReLU"}, {"_target_": "os.system"}]},
        {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "os.system"}]},
        {"_target_": "torch.nn.Sequential", "_args_": [[{"x": {"_target_": "os.system"}}]]},
        {"_target_": "torch.nn.Sequential", "_recursive_": False, "x": {"_target_": "os.system"}},
        {"_target_": "torch.nn.Sequential", "_partial_": True, "_convert_": "all", "x": {"_target_": "os.system"}},
        {"a": {"_target_": "${b}"}, "b": "os.system"},
        {"a": {"_target_": "torch.${b}"}, "b": "load"},
        {"a": {"_target_": "${oc.env:SPECTRAIN_TEST_TARGET}"}},
        {"a": {"_target_": "${oc.decode:'os.system'}"}},
        {"a": "${b}", "b": [{"_target_": "os.system"}]},
        {"a": "${oc.create:{_target_:os.system}}"},
    ],
    ids=str,
)
def test_it_is_found_wherever_it_hides(hidden: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRAIN_TEST_TARGET", "os.system")
    with pytest.raises(InputError, match=r"os\.system|torch\.load"):
        check_targets(OmegaConf.create(hidden))


def test_an_allowed_beginning_is_not_imported_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spectrain_evil_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError):
        check("spectrain_evil_module.run")
    assert "spectrain_evil_module" not in sys.modules


@pytest.fixture
def mylab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mylab_for_tests"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "networks.py").write_text(
        "import os\nfrom mylab_for_tests import lazy\nclass Net: pass\ndef make(): return Net()\nown = make\n"
    )
    (package / "lazy.py").write_text("def __getattr__(name): raise RuntimeError('looked into')\n")
    (package / "other.py").write_text("class Net: pass\n")
    (package / "failing.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("mylab")
def test_ones_own_prefix_allows_what_lies_below_it() -> None:
    for target in ("mylab_for_tests.networks.Net", "mylab_for_tests.networks.make"):
        check(target, "mylab_for_tests.networks")
        check(target, "mylab_for_tests")
        check(target, "torchvision", target)
        with pytest.raises(InputError, match=r"allow_targets=\[mylab_for_tests\.networks\]"):
            check(target)


@pytest.mark.usefixtures("mylab")
def test_a_module_of_ones_own_that_lacks_a_package_says_which() -> None:
    with pytest.raises(InputError, match="failing needs a_module_that_is_not_there, which is not installed"):
        check("mylab_for_tests.failing.Net", "mylab_for_tests")


@pytest.mark.usefixtures("mylab")
@pytest.mark.parametrize(
    "target",
    [
        "mylab_for_tests.networks.os.system",
        "mylab_for_tests.networks.lazy.anything",
        "mylab_for_tests.other.Net",
        "mylab_for_tests.networks.Gone",
        "mylab_for_tests.networksX.Net",
        "os.system",
    ],
)
def test_ones_own_prefix_allows_nothing_else(target: str) -> None:
    with pytest.raises(InputError):
        check(target, "mylab_for_tests.networks")


def test_an_exact_name_allows_that_object() -> None:
    check("collections.OrderedDict", "collections.OrderedDict")
    with pytest.raises(InputError):
        check("collections.Counter", "collections.OrderedDict")


@pytest.mark.parametrize("entry", ["", ".", "*", "my lab", "mylab.", "os.*", 3, None])
def test_a_prefix_is_a_dotted_name(entry: Any) -> None:
    with pytest.raises(InputError, match="allow_targets"):
        check_targets(OmegaConf.create({}), [entry])


@pytest.mark.parametrize(
    "target", ["os.system", "builtins.eval", "torch.load", "torch.hub.load", "lightning_fabric.run"]
)
def test_no_advice_on_letting_a_standard_function_through(target: str) -> None:
    with pytest.raises(InputError) as caught:
        check(target)
    assert "allow_targets" not in str(caught.value)


def test_a_missing_name_gets_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean Adam"):
        check("torch.optim.Adamm")
    with pytest.raises(InputError, match="did you mean Linear"):
        check("torch.nn.Linaer")


def test_a_config_that_cannot_be_resolved_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be resolved"):
        check_targets(OmegaConf.create({"a": "${nothing.here}"}))
