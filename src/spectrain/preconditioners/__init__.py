"""What acts on a gradient: the ways of applying a modified spectrum, and the landmarks that feed them."""

from spectrain.preconditioners.base import Preconditioner
from spectrain.preconditioners.grid_tail import GridPreconditioner
from spectrain.preconditioners.landmarks import EXTENSIONS, Landmarks, choose_landmarks, interpolate_grid
from spectrain.preconditioners.metric import optimizer_metric
from spectrain.preconditioners.modes import evaluating
from spectrain.preconditioners.orthonormal import orthonormal_columns
from spectrain.preconditioners.sample_side import SamplePreconditioner, apply_sample

__all__ = [
    "EXTENSIONS",
    "GridPreconditioner",
    "Landmarks",
    "Preconditioner",
    "SamplePreconditioner",
    "apply_sample",
    "choose_landmarks",
    "evaluating",
    "interpolate_grid",
    "optimizer_metric",
    "orthonormal_columns",
]
