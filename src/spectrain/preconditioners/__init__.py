"""What acts on a gradient: the ways of applying a modified spectrum, and the landmarks that feed them."""

from spectrain.preconditioners.base import Preconditioner
from spectrain.preconditioners.batch_side import BatchPreconditioner
from spectrain.preconditioners.landmarks import EXTENSIONS, Landmarks, choose_landmarks, interpolate_grid
from spectrain.preconditioners.modes import evaluating
from spectrain.preconditioners.orthonormal import orthonormal_columns
from spectrain.preconditioners.sample_side import SamplePreconditioner, apply_sample

__all__ = [
    "EXTENSIONS",
    "BatchPreconditioner",
    "Landmarks",
    "Preconditioner",
    "SamplePreconditioner",
    "apply_sample",
    "choose_landmarks",
    "evaluating",
    "interpolate_grid",
    "orthonormal_columns",
]
