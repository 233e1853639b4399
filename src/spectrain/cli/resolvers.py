"""Functions that configuration files may call, ``${name:arguments}``."""

import math

from omegaconf import OmegaConf


def parameterized_lr(rate: float, parameterization: str, width: int) -> float:
    """The rate of an adaptive optimizer for a network of this width, given that of the standard parameterisation.

    Weights of the NTK parameterisation are ``sqrt(width / 2)`` times larger for the same function (ReLU gain), and a
    step of Adam or SOAP has the size of the rate whatever the gradient's: the rate grows as they do.
    """
    if isinstance(width, bool) or not isinstance(width, int | float) or not width > 0:
        return math.nan  # model.width is refused by its own rule, in better words than an error here would get
    scale = math.sqrt(width / 2) if parameterization == "ntk" else 1.0
    return float(f"{rate * scale:.3g}")


def register_resolvers() -> None:
    """Make them known to OmegaConf; safe to call twice."""
    OmegaConf.register_new_resolver("parameterized_lr", parameterized_lr, replace=True)
