"""Normalisation layers: their scale and shift, after a normalisation without parameters."""

import torch.nn.functional as F
from torch import Tensor, nn

from spectrain.kernels.registry import NoRuleError, register_rule
from spectrain.kernels.tape import Tape

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
InstanceNorm = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d


def _affine(tape: Tape, x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    if weight is not None:
        x = tape.multiply(x, weight, shape)
    return x if bias is None else tape.add(x, bias, shape)


def _per_channel(x: Tensor) -> tuple[int, ...]:
    return (x.shape[1],) + (1,) * (x.ndim - 2)


@register_rule(nn.LayerNorm)
def layer_norm(tape: Tape, module: nn.LayerNorm, input: Tensor) -> Tensor:
    """Over the last axes."""
    shape = tuple(module.normalized_shape)
    return _affine(tape, F.layer_norm(input, shape, eps=module.eps), module.weight, module.bias, shape)


@register_rule(nn.RMSNorm)
def rms_norm(tape: Tape, module: nn.RMSNorm, x: Tensor) -> Tensor:
    """Over the last axes, no shift."""
    shape = tuple(module.normalized_shape)
    return _affine(tape, F.rms_norm(x, list(shape), eps=module.eps), module.weight, None, shape)


@register_rule(nn.GroupNorm)
def group_norm(tape: Tape, module: nn.GroupNorm, input: Tensor) -> Tensor:
    """Over groups of channels of one point."""
    x = F.group_norm(input, module.num_groups, eps=module.eps)
    return _affine(tape, x, module.weight, module.bias, _per_channel(x))


@register_rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def batch_norm(tape: Tape, module: BatchNorm, input: Tensor) -> Tensor:
    """With running statistics only; in training mode the points mix and there is no kernel."""
    if module.training or module.running_mean is None:
        raise NoRuleError
    x = F.batch_norm(input, module.running_mean, module.running_var, eps=module.eps)
    return _affine(tape, x, module.weight, module.bias, _per_channel(x))


@register_rule(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def instance_norm(tape: Tape, module: InstanceNorm, input: Tensor) -> Tensor:
    """Over the pixels of one channel of one point, or with running statistics."""
    if input.ndim != module._get_no_batch_dim() + 1 or (module.training and module.track_running_stats):
        raise NoRuleError
    use_input = not module.track_running_stats
    x = F.instance_norm(input, module.running_mean, module.running_var, use_input_stats=use_input, eps=module.eps)
    return _affine(tape, x, module.weight, module.bias, _per_channel(x))


@register_rule(nn.PReLU)
def prelu(tape: Tape, module: nn.PReLU, input: Tensor) -> Tensor:
    """relu(x) + weight * min(x, 0), one weight or one per channel."""
    shape = (1,) if module.num_parameters == 1 or input.ndim < 2 else _per_channel(input)
    return F.relu(input) + tape.multiply(input.clamp(max=0), module.weight, shape)
