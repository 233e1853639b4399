"""Experiments that are more than one run, each ending in one figure: a class with ``run(cells) -> Findings``."""

from spectrain.studies.batch_size import BatchSizeStudy
from spectrain.studies.cells import Cells, Trained
from spectrain.studies.circle import CircleStudy
from spectrain.studies.findings import Findings
from spectrain.studies.generalisation import GeneralisationStudy
from spectrain.studies.same_solution import SameSolutionStudy
from spectrain.studies.spectral_bias import SpectralBiasStudy
from spectrain.studies.width import WidthStudy

__all__ = [
    "BatchSizeStudy",
    "Cells",
    "CircleStudy",
    "Findings",
    "GeneralisationStudy",
    "SameSolutionStudy",
    "SpectralBiasStudy",
    "Trained",
    "WidthStudy",
]
