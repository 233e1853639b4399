"""The parameter side as an optimizer, base optimizers that no library has in the form needed, and schedules."""

from spectrain.optim.esgd import ESGD
from spectrain.optim.factored import FactoredLinearization, RowBlock
from spectrain.optim.gauss_newton import GaussNewton
from spectrain.optim.groups import apply_scales, scaled_groups
from spectrain.optim.least_squares import LeastSquares
from spectrain.optim.linearization import DenseLinearization, Linearization, linearize
from spectrain.optim.modified_spectrum import ModifiedSpectrumOptimizer, switch_weights
from spectrain.optim.muon import MuonWithAdam
from spectrain.optim.readout import solve_readout, solved_readout
from spectrain.optim.schedules import constant, cosine

__all__ = [
    "ESGD",
    "DenseLinearization",
    "FactoredLinearization",
    "GaussNewton",
    "LeastSquares",
    "Linearization",
    "ModifiedSpectrumOptimizer",
    "MuonWithAdam",
    "RowBlock",
    "apply_scales",
    "constant",
    "cosine",
    "linearize",
    "scaled_groups",
    "solve_readout",
    "solved_readout",
    "switch_weights",
]
