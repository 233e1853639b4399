"""Factors of per-sample gradients: outer products, patches, indices, or the gradients themselves."""

from spectrain.kernels.factors.base import Dense, Factor, Outer, Sizes
from spectrain.kernels.factors.index import Index
from spectrain.kernels.factors.join import join
from spectrain.kernels.factors.normed import Normed
from spectrain.kernels.factors.patches import Geometry, Patches, patches
from spectrain.kernels.factors.total import Sum

__all__ = ["Dense", "Factor", "Geometry", "Index", "Normed", "Outer", "Patches", "Sizes", "Sum", "join", "patches"]
