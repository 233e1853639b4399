"""Predicts the error of every spectral map from the kernel and the targets, and suggests one."""

from spectrain.selection.candidate import Candidate
from spectrain.selection.eigenlearning import Eigenlearning, eigenlearning
from spectrain.selection.pilot import Pilot, network_pilot
from spectrain.selection.suggestion import Suggestion, suggest_spectral_map

__all__ = [
    "Candidate",
    "Eigenlearning",
    "Pilot",
    "Suggestion",
    "eigenlearning",
    "network_pilot",
    "suggest_spectral_map",
]
