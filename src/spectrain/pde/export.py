"""A field on a grid, as files that other programs read.

Legend: G points along each axis, C outputs.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from spectrain.errors import InputError

Array = np.ndarray


def write_vtk(path: str | Path, axes: list[Float[Array, " G"]], values: dict[str, Float[Array, "*grid"]]) -> None:
    """Arrays over a regular grid of one to three axes as a legacy VTK file (ParaView, pyvista, meshio).

    `axes` are evenly spaced; every array has one entry for each point of the grid. NaN marks points outside.

    Raises:
        InputError: more than three axes, or an array of another shape.
    """
    shape = tuple(len(axis) for axis in axes)
    if not 1 <= len(axes) <= 3 or any(array.shape != shape for array in values.values()):
        raise InputError(f"A VTK grid has one to three axes and arrays of its shape; it was given {shape}.")
    sizes = [*shape, 1, 1][:3]
    origin = [*(float(axis[0]) for axis in axes), 0.0, 0.0][:3]
    steps = [*(float(axis[-1] - axis[0]) / max(1, len(axis) - 1) or 1.0 for axis in axes), 1.0, 1.0][:3]
    lines = ["# vtk DataFile Version 3.0", "spectrain", "ASCII", "DATASET STRUCTURED_POINTS"]
    for name, numbers in (("DIMENSIONS", sizes), ("ORIGIN", origin), ("SPACING", steps)):
        lines.append(" ".join([name, *map(repr, numbers)]))
    lines.append(f"POINT_DATA {int(np.prod(sizes))}")
    for name, array in values.items():
        lines += [f"SCALARS {name} double 1", "LOOKUP_TABLE default"]
        # VTK's first axis runs fastest.
        lines += [f"{number:.9g}" for number in np.asarray(array, float).ravel(order="F")]
    Path(path).write_text("\n".join(lines) + "\n")
