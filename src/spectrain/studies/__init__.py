"""Experiments that are more than one run, each ending in one figure: a class with ``run(cells) -> Findings``."""

from spectrain.studies.cells import Cells, Trained
from spectrain.studies.findings import Findings
from spectrain.studies.initialisation import Initialisation
from spectrain.studies.over_seeds import OverSeeds
from spectrain.studies.where_it_pays import WhereItPays

__all__ = ["Cells", "Findings", "Initialisation", "OverSeeds", "Trained", "WhereItPays"]
