"""Base optimizers that no library has in the form needed, and learning-rate schedules."""

from spectrain.optim.muon import MuonWithAdam
from spectrain.optim.schedules import constant, cosine

__all__ = ["MuonWithAdam", "constant", "cosine"]
