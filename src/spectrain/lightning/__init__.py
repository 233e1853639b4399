"""Module, callbacks, loggers: the only layer that imports the Trainer's side of Lightning, or wandb."""

from spectrain.lightning.auto_callback import AutoCallback
from spectrain.lightning.automatic_rate import AutomaticRate
from spectrain.lightning.checkpoint_io import WholeCheckpoints
from spectrain.lightning.history import RunHistory
from spectrain.lightning.interrupt import GracefulInterrupt
from spectrain.lightning.least_squares_module import LeastSquaresModule
from spectrain.lightning.loggers import MetricsCSV, last_logged_step
from spectrain.lightning.lost_rank import LOST, LostRankError, watching
from spectrain.lightning.module import WideNetworkModule
from spectrain.lightning.physics_data import PDEDataModule
from spectrain.lightning.physics_history import PhysicsHistory
from spectrain.lightning.physics_module import PhysicsModule
from spectrain.lightning.progress import TrainingProgress
from spectrain.lightning.random_state import RandomState
from spectrain.lightning.solved_readout import SolvedReadout
from spectrain.lightning.spectrum_callback import SpectrumCallback
from spectrain.lightning.tracker import Tracker
from spectrain.lightning.tracking import Alerts
from spectrain.lightning.wandb_run import wandb_logger

__all__ = [
    "LOST",
    "Alerts",
    "AutoCallback",
    "AutomaticRate",
    "GracefulInterrupt",
    "LeastSquaresModule",
    "LostRankError",
    "MetricsCSV",
    "PDEDataModule",
    "PhysicsHistory",
    "PhysicsModule",
    "RandomState",
    "RunHistory",
    "SolvedReadout",
    "SpectrumCallback",
    "Tracker",
    "TrainingProgress",
    "WholeCheckpoints",
    "WideNetworkModule",
    "last_logged_step",
    "wandb_logger",
    "watching",
]
