"""Known equations, each with an exact or a computed reference; one small file each."""

from spectrain.pde.equations.poisson import Poisson

__all__ = ["Poisson"]
