"""Experiments that are more than one run, each ending in one figure: a class with ``run(cells) -> Findings``."""

from spectrain.studies.batch_size import BatchSizeStudy
from spectrain.studies.cells import Cells, Trained
from spectrain.studies.circle import CircleStudy
from spectrain.studies.findings import Findings
from spectrain.studies.generalisation import GeneralisationStudy
from spectrain.studies.initialisation import Initialisation
from spectrain.studies.over_seeds import OverSeeds
from spectrain.studies.same_solution import SameSolutionStudy
from spectrain.studies.spectral_bias import SpectralBiasStudy
from spectrain.studies.where_it_pays import WhereItPays
from spectrain.studies.width import WidthStudy

__all__ = [
    "BatchSizeStudy",
    "Cells",
    "CircleStudy",
    "Findings",
    "GeneralisationStudy",
    "Initialisation",
    "OverSeeds",
    "SameSolutionStudy",
    "SpectralBiasStudy",
    "Trained",
    "WhereItPays",
    "WidthStudy",
]
