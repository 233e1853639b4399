"""What acts on a gradient: the ways of applying a modified spectrum, and the landmarks that feed them."""

from spectrain.preconditioners.base import Preconditioner
from spectrain.preconditioners.interpolation import interpolate_grid
from spectrain.preconditioners.landmarks import EXTENSIONS, PLACEMENTS, Landmarks, choose_landmarks
from spectrain.preconditioners.modes import evaluating
from spectrain.preconditioners.orthonormal import orthonormal_columns
from spectrain.preconditioners.output_modes import softmax_hessian
from spectrain.preconditioners.sample_side import SamplePreconditioner, apply_sample

__all__ = [
    "EXTENSIONS",
    "PLACEMENTS",
    "Landmarks",
    "Preconditioner",
    "SamplePreconditioner",
    "apply_sample",
    "choose_landmarks",
    "evaluating",
    "interpolate_grid",
    "orthonormal_columns",
    "softmax_hessian",
]
