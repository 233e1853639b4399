"""Known equations, each with an exact or a computed reference."""

from spectrain.pde.equations.corner import LShape
from spectrain.pde.equations.flow import Kovasznay, NavierStokes, TaylorGreen
from spectrain.pde.equations.heat import Heat, HeatInverse
from spectrain.pde.equations.helmholtz import Helmholtz
from spectrain.pde.equations.poisson import Poisson
from spectrain.pde.equations.reaction import AllenCahn, Burgers
from spectrain.pde.equations.wave import Wave

__all__ = [
    "AllenCahn",
    "Burgers",
    "Heat",
    "HeatInverse",
    "Helmholtz",
    "Kovasznay",
    "LShape",
    "NavierStokes",
    "Poisson",
    "TaylorGreen",
    "Wave",
]
