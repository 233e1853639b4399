"""Kernels of networks: the empirical NTK, exact, by layer Gram matrices.

`empirical_ntk` computes it; `register_rule` and `Tape` teach it a new kind of layer (see `registry`).
"""

from spectrain.kernels.empirical import empirical_ntk
from spectrain.kernels.registry import register_rule
from spectrain.kernels.tape import Tape

__all__ = ["Tape", "empirical_ntk", "register_rule"]
