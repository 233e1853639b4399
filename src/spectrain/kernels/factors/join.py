"""One factor for a parameter that is used several times."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from spectrain.kernels.factors.base import Dense, Factor, Outer
from spectrain.kernels.factors.index import Index
from spectrain.kernels.factors.normed import Normed
from spectrain.kernels.factors.total import Sum


def join(uses: Sequence[Factor]) -> Factor:
    """The factor of the sum of several uses' gradients; uses of one kind become more positions of one factor."""
    if len(uses) == 1:
        return uses[0]
    outer = [use for use in uses if isinstance(use, Outer)]
    if len(outer) == len(uses):
        biases = {use.bias for use in outer}
        a = torch.cat([use.a if len(biases) == 1 else use.inputs() for use in outer], 1)
        return Outer(a, torch.cat([use.b for use in outer], 2), biases.pop() if len(biases) == 1 else 0.0)
    normed = [use for use in uses if isinstance(use, Normed)]
    if len(normed) == len(uses):
        along = torch.stack([use.along for use in normed]).sum(0)
        return replace(normed[0], plain=join([use.plain for use in normed]), along=along)
    index = [use for use in uses if isinstance(use, Index)]
    if len(index) == len(uses):
        return index[0].like([torch.cat([use.index for use in index], 1), torch.cat([use.b for use in index], 2)])
    uses = [replace(use, by_entry=True) if isinstance(use, Index) else use for use in uses]
    shapes = {(use.sizes.inputs, use.sizes.outputs, use.sizes.groups) for use in uses}
    if len(shapes) == 1:
        return Sum(tuple(uses))
    # Uses of different form agree only in the parameter's own order of columns.
    return Dense(torch.stack([use.columns(0, use.sizes.outputs) for use in uses]).sum(0))
