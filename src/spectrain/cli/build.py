"""From an accepted configuration to objects."""

import datetime
import functools
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]
from torch import nn
from torch.nn import functional
from torch.optim import Optimizer

from spectrain.data import FieldDataModule
from spectrain.errors import InputError, SpectrainWarning
from spectrain.lightning import LeastSquaresModule, SolvedReadout, WholeCheckpoints, WideNetworkModule
from spectrain.metrics import Quality
from spectrain.models import center_output
from spectrain.optim import GaussNewton, constant, cosine
from spectrain.optim.readout import readout
from spectrain.preconditioners import GridPreconditioner

# Keys beside a _target_ that this program reads itself.
NOT_ARGUMENTS = ("center_output", "adaptive_lr", "scale_free", "default_alpha", "damping")
# Seconds of trainer.timeout_seconds in which a process finds out, after a collective has failed, whose fault it was.
TO_NAME_A_RANK = 20.0
# What constructors raise for settings that they do not take.
REFUSALS = (TypeError, ValueError, LookupError, ArithmeticError, ImportError, MisconfigurationException)
# What a person may switch off is the rest.
REQUIRED = ("data", "model", "optimizer", "trainer", "callbacks", "paths")


def check_groups(cfg: DictConfig) -> None:
    """Refuse a configuration that lacks what every run needs.

    Raises:
        InputError: naming the group.
    """
    for key in REQUIRED:
        if not isinstance(cfg.get(key), DictConfig):
            raise InputError(f"{key} is missing, and no run can do without it; leave ~{key} out.")
    for key in ("data", "model", "optimizer", "trainer"):
        if not is_on(cfg, key):
            raise InputError(f"{key}._target_ is null or missing; it must be the dotted name of a class.")
    for name, settings in cfg.callbacks.items():
        if not isinstance(settings, DictConfig):
            raise InputError(f"callbacks.{name}={settings} must be a group with a _target_, or be left out.")


def is_on(cfg: DictConfig, key: str) -> bool:
    """Whether a group is there and makes something (``preconditioner=none`` does not)."""
    settings = cfg.get(key)
    return isinstance(settings, DictConfig) and settings.get("_target_") is not None


def build_data(cfg: DictConfig) -> Any:
    """The data module of ``data=``."""
    return build(cfg, "data")


def build_field(cfg: DictConfig) -> FieldDataModule:
    """The same, of data that a network is fitted to.

    Raises:
        InputError: a class of the user's own that cannot say what its runs are judged by, or data that are no picture
            with preconditioner=grid.
    """
    data = build_data(cfg)
    if not isinstance(data, FieldDataModule):
        raise InputError(
            f"data._target_={cfg.data['_target_']} made a {type(data).__name__}; it must be a subclass of "
            "spectrain.data.FieldDataModule."
        )
    if data.grid_shape is None and is_on(cfg, "preconditioner") and _is_grid(cfg.preconditioner["_target_"]):
        raise InputError(
            "preconditioner=grid needs the pixels of a picture, which these data are not (their grid_shape is None); "
            "take preconditioner=sample."
        )
    return data


def _is_grid(target: str) -> bool:
    made = get_object(target)
    return isinstance(made, type) and issubclass(made, GridPreconditioner)


def build_network(cfg: DictConfig, data: Any) -> nn.Module:
    """The network of ``model=``, told the data's numbers of features where its signature asks for them."""
    settings: dict[str, Any] = dict(OmegaConf.to_container(cfg.model, resolve=True))  # type: ignore[arg-type]
    center = settings.get("center_output", False)
    settings = {name: value for name, value in settings.items() if name not in NOT_ARGUMENTS}
    target = settings["_target_"]
    known: dict[str, Any] = {"in_features": data.in_features, "out_features": data.out_features}
    wanted = {name: value for name, value in known.items() if name in _parameters(target) and name not in settings}
    try:
        network = _instantiate(settings, **wanted)
    except InputError:
        raise
    except Exception as error:  # Hydra wraps whatever the constructor raised
        raise _constructor_error("model", target, error) from error
    if not isinstance(network, nn.Module):
        raise InputError(f"model._target_={target} made a {type(network).__name__}; it must make a torch.nn.Module.")
    if center and not center_output(network, data.target_mean):
        print(
            "note: model.center_output has no effect: the network's last layer has no bias with one entry per output."
        )
    return network


def build_module(cfg: DictConfig, network: nn.Module, data: Any, config_yaml: str) -> WideNetworkModule:
    """Network, optimizer, schedule, preconditioner and metrics in one LightningModule."""
    hparams = OmegaConf.to_container(cfg, resolve=True)
    optimizer, schedule = build(cfg, "optimizer"), build(cfg, "schedule")
    if get_object(cfg.optimizer["_target_"]) is GaussNewton:
        if data.loss is not functional.mse_loss:
            raise InputError(
                "optimizer=gauss_newton solves a least-squares problem, and the loss of these data is another (classes "
                "have cross-entropy); take another one, such as optimizer=soap."
            )
        plain = schedule is None or get_object(cfg.schedule["_target_"]) in (constant, cosine)
        if not plain or cfg.schedule.get("hold") or cfg.schedule.get("warmup_steps"):  # chosen, not there by default
            _warn("schedule has no effect with optimizer=gauss_newton on data: a line search finds each step.")
        try_optimizer(cfg, network, optimizer, None)
        return LeastSquaresModule(network, optimizer, metrics=data.metrics(), config_yaml=config_yaml, hparams=hparams)
    if is_rate_automatic(cfg):  # the callback multiplies the rate with what it measures
        optimizer = functools.partial(optimizer, lr=1.0)
    try_optimizer(cfg, network, optimizer, schedule)
    return WideNetworkModule(
        network,
        optimizer,
        schedule=schedule,
        loss=data.loss,
        scale_free=bool(cfg.optimizer.get("scale_free", False)),
        preconditioner=build(cfg, "preconditioner"),
        guard=bool(cfg.get("guard", False)),
        metrics=data.metrics(),
        config_yaml=config_yaml,
        hparams=hparams,
    )


def is_rate_automatic(cfg: DictConfig) -> bool:
    """Whether the learning rate is to be measured (``optimizer.lr=auto``)."""
    return bool(cfg.optimizer.get("lr") == "auto")


def try_optimizer(cfg: DictConfig, network: nn.Module, optimizer: Any, schedule: Any) -> None:
    """Make both once and throw them away: what they do not accept must be said before a folder is made."""
    _check_arguments(cfg.optimizer)
    key = "optimizer"
    try:
        made = optimizer(network.parameters())
        if not isinstance(made, Optimizer):
            raise TypeError("it does not make a torch.optim.Optimizer; keep optimizer._partial_=true")
        if schedule is not None:
            key = "schedule"
            schedule(made)
    except Exception as error:
        raise _constructor_error(key, cfg[key]["_target_"], error) from error


def _check_arguments(settings: DictConfig) -> None:
    """What an optimizer would find out at its first step, or never: pytorch_optimizer takes any keyword."""
    target, known = settings["_target_"], _parameters(settings["_target_"])
    for name in map(str, settings):
        takes_it = name in known or name.startswith("_") or name in NOT_ARGUMENTS
        if not takes_it and any(p.kind is p.VAR_KEYWORD for p in known.values()):
            _warn(f"optimizer.{name} is not among the arguments that {target} names, and may have no effect.")
    default = known["betas"].default if "betas" in known else None
    given = settings.get("betas")
    if isinstance(default, tuple) and given is not None and len(given) != len(default):
        raise InputError(f"optimizer.betas={list(given)} cannot be used; {target} takes {len(default)} numbers.")


def _warn(message: str) -> None:
    warnings.warn(message, SpectrainWarning, stacklevel=2)


def build(cfg: DictConfig, key: str) -> Any:
    """What the ``_target_`` of a group makes; None when it is null (``preconditioner=none``, ``logger=none``)."""
    if not is_on(cfg, key):
        return None
    # Resolved while the rest of the configuration is at hand: a list of groups loses its parent on the way.
    found: dict[str, Any] = dict(OmegaConf.to_container(cfg[key], resolve=True))  # type: ignore[arg-type]
    settings = {name: value for name, value in found.items() if name not in NOT_ARGUMENTS}
    try:
        return _instantiate(settings)
    except InputError:
        raise
    except Exception as error:
        raise _constructor_error(key, settings["_target_"], error) from error


def choose_monitor(cfg: DictConfig, quality: Quality) -> None:
    """Put the data's own metric in the place of a callback's ``monitor: auto``, with its direction.

    Raises:
        InputError: a direction is given for the data's own metric.
    """
    for name, settings in cfg.callbacks.items():
        if settings.get("monitor") == "auto":
            if settings.get("mode", "auto") != "auto":
                key = f"callbacks.{name}"
                raise InputError(
                    f"{key}.mode={settings.mode} cannot be used with {key}.monitor=auto: the data's own metric brings "
                    f"its direction; leave it out, or name a metric too, such as {key}.monitor=train/loss."
                )
            settings.monitor, settings.mode = f"val/{quality.name}", "max" if quality.higher else "min"


def build_readout(cfg: DictConfig, network: nn.Module, data: FieldDataModule) -> list[pl.Callback]:
    """The callback of ``readout=solved``, or none.

    Raises:
        InputError: another loss than a squared error, or a network whose last layer cannot be solved for.
    """
    if cfg.get("readout") != "solved":
        return []
    if data.loss is not functional.mse_loss:
        raise InputError(
            "readout=solved is a least-squares problem, and the loss of these data is another (classes have "
            "cross-entropy); leave readout=trained."
        )
    readout(network, data.train_x[:1])
    return [SolvedReadout()]


def build_callbacks(cfg: DictConfig) -> list[pl.Callback]:
    """The callbacks of ``callbacks=``, in their order."""
    return [build(cfg.callbacks, name) for name in cfg.callbacks or {}]


def build_trainer(cfg: DictConfig, callbacks: list[pl.Callback]) -> pl.Trainer:
    """The Trainer of ``trainer=``; an endless epoch that stops by max_steps, validated by steps. It has no logger."""
    fixed = {
        "max_epochs": -1,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "callbacks": callbacks,
        "logger": False,
        "default_root_dir": cfg.paths.run_dir,
    }
    # Lightning counts this interval in batches, and an optimizer step may take several.
    interval = min(cfg.trainer.val_check_interval, cfg.trainer.max_steps) * cfg.trainer.accumulate_grad_batches
    settings = {"plugins": [WholeCheckpoints()], **cfg.trainer, "val_check_interval": interval}
    timeout = settings.pop("timeout_seconds", None)
    if settings.get("strategy") == "ddp" and timeout is not None:
        collective = max(timeout - TO_NAME_A_RANK, timeout / 2)
        fixed["strategy"] = DDPStrategy(timeout=datetime.timedelta(seconds=collective))
    try:
        trainer: pl.Trainer = _instantiate(settings, **fixed)
        return trainer
    except Exception as error:
        raise _constructor_error("trainer", cfg.trainer["_target_"], error) from error


def _instantiate(settings: Any, **more: Any) -> Any:
    """With plain lists and dictionaries: an optimizer that keeps an OmegaConf list cannot be loaded again."""
    return instantiate(settings, _convert_="all", **more)


def _parameters(target: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(get_object(target)).parameters


def _constructor_error(key: str, target: str, error: BaseException) -> Exception:
    """The InputError inside Hydra's InstantiationException, or one that says what the constructor said."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return cause
        if isinstance(cause, REFUSALS) and cause.__cause__ is None:
            more = f"; an experiment may have set a key for another {key}: leave it out with ~{key}.NAME"
            hint = more if "unexpected keyword" in str(cause) else ""
            return InputError(f"{key} ({target}) does not accept these settings: {cause}{hint}")
        if isinstance(cause, InstantiationException) and cause.__cause__ is None:  # Hydra's own, of a _target_ inside
            return InputError(f"{key} ({target}) cannot be made: {cause}")
        cause = cause.__cause__
    return error if isinstance(error, Exception) else RuntimeError(str(error))
