"""Kernels of networks: the empirical NTK, exact, by layer Gram matrices.

`empirical_ntk` computes it; `register_rule` and `Tape` teach it a new kind of layer (see `registry`).
"""

from spectrain.kernels.distributed import rank_rows
from spectrain.kernels.empirical import empirical_ntk
from spectrain.kernels.infinite_width import infinite_width_nngp, infinite_width_ntk
from spectrain.kernels.operator import NTKOperator
from spectrain.kernels.registry import NoRuleError, register_rule
from spectrain.kernels.staircase import SharedKernel, shared_ntk
from spectrain.kernels.tape import Tape

__all__ = [
    "NTKOperator",
    "NoRuleError",
    "SharedKernel",
    "Tape",
    "empirical_ntk",
    "infinite_width_nngp",
    "infinite_width_ntk",
    "rank_rows",
    "register_rule",
    "shared_ntk",
]
