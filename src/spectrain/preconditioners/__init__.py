"""What acts on a gradient: the ways of applying a modified spectrum, and the landmarks that feed them."""

from spectrain.preconditioners.auto import AutoPreconditioner
from spectrain.preconditioners.base import Preconditioner
from spectrain.preconditioners.batch_side import BatchPreconditioner
from spectrain.preconditioners.choice import PAYS, USELESS
from spectrain.preconditioners.grid_tail import GridPreconditioner
from spectrain.preconditioners.guard import Guard
from spectrain.preconditioners.interpolation import interpolate_grid
from spectrain.preconditioners.landmarks import EXTENSIONS, PLACEMENTS, Landmarks, choose_landmarks
from spectrain.preconditioners.metric import optimizer_metric
from spectrain.preconditioners.modes import evaluating
from spectrain.preconditioners.orthonormal import orthonormal_columns
from spectrain.preconditioners.output_modes import softmax_hessian
from spectrain.preconditioners.parameter_side import ParameterPreconditioner, apply_parameter
from spectrain.preconditioners.sample_side import SamplePreconditioner, apply_sample
from spectrain.preconditioners.step_size import (
    automatic_rate,
    eigenpro_step_size,
    largest_preconditioned_eigenvalue,
)

__all__ = [
    "EXTENSIONS",
    "PAYS",
    "PLACEMENTS",
    "USELESS",
    "AutoPreconditioner",
    "BatchPreconditioner",
    "GridPreconditioner",
    "Guard",
    "Landmarks",
    "ParameterPreconditioner",
    "Preconditioner",
    "SamplePreconditioner",
    "apply_parameter",
    "apply_sample",
    "automatic_rate",
    "choose_landmarks",
    "eigenpro_step_size",
    "evaluating",
    "interpolate_grid",
    "largest_preconditioned_eigenvalue",
    "optimizer_metric",
    "orthonormal_columns",
    "softmax_hessian",
]
