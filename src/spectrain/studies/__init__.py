"""Experiments that are more than one run, each ending in one figure: a class with ``run(cells) -> Findings``."""

from spectrain.studies.cells import Cells, Trained
from spectrain.studies.findings import Findings

__all__ = ["Cells", "Findings", "Trained"]
