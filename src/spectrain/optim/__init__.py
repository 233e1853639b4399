"""Base optimizers that no library has in the form needed, and learning-rate schedules."""

from spectrain.optim.groups import apply_scales, scaled_groups
from spectrain.optim.muon import MuonWithAdam
from spectrain.optim.schedules import constant, cosine

__all__ = ["MuonWithAdam", "apply_scales", "constant", "cosine", "scaled_groups"]
