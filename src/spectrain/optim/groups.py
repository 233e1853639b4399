"""Parameter groups that let one learning rate mean the same in NTK and in standard parameterisation."""

from typing import Any

from torch import nn
from torch.optim import Optimizer


def scaled_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters in groups by ``lr_scale = 1 / scale``, scale the factor that the layer multiplies them with.

    A step of Adam, Muon or SOAP has the size of the rate, whatever the gradient's. In ``h = scale W a`` such a step
    moves the effective weight ``scale W`` by ``scale * rate`` only, differently in each layer; dividing the rate by the
    scale undoes that (Everett et al. 2024, arXiv 2407.05872). Layers tell their factors as `weight_scale` and
    `bias_scale`; other parameters have 1. Gradient descent needs none of this: there the factors are the point.
    """
    scales: dict[nn.Parameter, float] = {}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            scales.setdefault(parameter, getattr(module, f"{name}_scale", 1.0))
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter, scale in scales.items():
        if parameter.requires_grad:
            groups.setdefault(scale, []).append(parameter)
    return [{"params": parameters, "lr_scale": 1 / scale} for scale, parameters in groups.items()]


def apply_scales(optimizer: Optimizer) -> Optimizer:
    """Multiply each group's rate by its ``lr_scale``; once, before a scheduler notes the initial rates."""
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_scale", 1.0)
    return optimizer
