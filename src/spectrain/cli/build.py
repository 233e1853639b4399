"""From an accepted configuration to objects."""

import inspect
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from spectrain.errors import InputError
from spectrain.lightning import WideNetworkModule
from spectrain.metrics import ImageMetrics
from spectrain.models import center_output


def build_data(cfg: DictConfig) -> Any:
    """The data module of ``data=``."""
    return _instantiate(cfg.data)


def build_network(cfg: DictConfig, data: Any) -> nn.Module:
    """The network of ``model=``, told the data's numbers of features where its signature asks for them."""
    settings: dict[str, Any] = dict(OmegaConf.to_container(cfg.model, resolve=True))  # type: ignore[arg-type]
    center = settings.pop("center_output", False)
    settings.pop("adaptive_lr", None)  # the optimizers' files refer to it
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
    return WideNetworkModule(
        network,
        build(cfg, "optimizer"),
        schedule=build(cfg, "schedule"),
        preconditioner=build(cfg, "preconditioner"),
        metrics=ImageMetrics(data.image, data.heldout_mask),
        config_yaml=config_yaml,
        hparams=OmegaConf.to_container(cfg, resolve=True),
    )


def build(cfg: DictConfig, key: str) -> Any:
    """What the ``_target_`` of a group makes; None when it is null (``preconditioner=none``, ``logger=none``)."""
    settings = cfg.get(key)
    if settings is None or settings.get("_target_") is None:
        return None
    try:
        return _instantiate(settings)
    except InputError:
        raise
    except Exception as error:
        raise _constructor_error(key, settings["_target_"], error) from error


def build_callbacks(cfg: DictConfig) -> list[pl.Callback]:
    """The callbacks of ``callbacks=``, in their order."""
    return [build(cfg.callbacks, name) for name in cfg.callbacks or {}]


def build_trainer(cfg: DictConfig, callbacks: list[pl.Callback], loggers: list[Any]) -> pl.Trainer:
    """The Trainer of ``trainer=``; an endless epoch that stops by max_steps, validated by steps."""
    fixed = {
        "max_epochs": -1,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "callbacks": callbacks,
        "logger": loggers,
        "default_root_dir": cfg.paths.run_dir,
    }
    settings = {**cfg.trainer, "val_check_interval": min(cfg.trainer.val_check_interval, cfg.trainer.max_steps)}
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
        if isinstance(cause, (TypeError, ValueError)) and cause.__cause__ is None:
            return InputError(f"{key} ({target}) does not accept these settings: {cause}")
        cause = cause.__cause__
    return error if isinstance(error, Exception) else RuntimeError(str(error))
