"""What acts on a gradient: the ways of applying a modified spectrum, and the landmarks that feed them."""

from spectrain.preconditioners.auto import AutoPreconditioner
from spectrain.preconditioners.base import Preconditioner
from spectrain.preconditioners.guard import Guard
from spectrain.preconditioners.landmarks import EXTENSIONS, Landmarks, choose_landmarks, interpolate_grid
from spectrain.preconditioners.modes import evaluating
from spectrain.preconditioners.orthonormal import orthonormal_columns
from spectrain.preconditioners.sample_side import SamplePreconditioner, apply_sample

__all__ = [
    "EXTENSIONS",
    "AutoPreconditioner",
    "Guard",
    "Landmarks",
    "Preconditioner",
    "SamplePreconditioner",
    "apply_sample",
    "choose_landmarks",
    "evaluating",
    "interpolate_grid",
    "orthonormal_columns",
]
