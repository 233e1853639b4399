"""``${sized:DEFAULT,PAPER}`` in a configuration: one value for a try on two cores, one for the full experiment."""

from typing import Any

from omegaconf import DictConfig, OmegaConf


def _sized(default: Any, paper: Any, *, _root_: DictConfig) -> Any:
    return paper if _root_.get("size") == "paper" else default


def register_sized() -> None:
    """Make the resolver known to OmegaConf."""
    OmegaConf.register_new_resolver("sized", _sized, replace=True)
