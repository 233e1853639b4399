"""Convolutions: a Linear layer on patches."""

import torch.nn.functional as F
from torch import Tensor, nn

from spectrain.kernels.factors import Geometry
from spectrain.kernels.registry import NoRuleError, register_rule
from spectrain.kernels.tape import Tape

ConvTranspose = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


@register_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def conv(tape: Tape, module: nn.Conv1d | nn.Conv2d | nn.Conv3d, input: Tensor) -> Tensor:
    """Any stride, padding and its modes, dilation and groups; the padding is done first where it is not plain zeros."""
    k = len(module.kernel_size)
    if input.ndim != k + 2:
        raise NoRuleError
    padding = module.padding
    if module.padding_mode != "zeros" or isinstance(padding, str):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        input = F.pad(input, module._reversed_padding_repeated_twice, mode=mode)
        padding = (0,) * k
    geometry = Geometry(module.kernel_size, module.stride, padding, module.dilation, module.groups)
    return tape.conv(input, module.weight, module.bias, geometry)


@register_rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def conv_transpose(tape: Tape, module: ConvTranspose, input: Tensor, output_size: list[int] | None = None) -> Tensor:
    """The same with the roles of inputs and output gradients exchanged."""
    k = len(module.kernel_size)
    if input.ndim != k + 2 or isinstance(module.padding, str):
        raise NoRuleError
    lists = [list(sizes) for sizes in (module.stride, module.padding, module.kernel_size, module.dilation)]
    extra = module._output_padding(input, output_size, lists[0], lists[1], lists[2], k, lists[3])
    geometry = Geometry(module.kernel_size, module.stride, module.padding, module.dilation, module.groups)
    return tape.conv(input, module.weight, module.bias, geometry, transposed=True, output_padding=tuple(extra))
