"""Two-layer networks trained to the end with S of their first kernel, and what the studies of width share.

Letters: n training points, m test points.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.preconditioners import SamplePreconditioner
from spectrain.regression import KernelRegression
from spectrain.studies.descent import descend
from spectrain.studies.settings import check_whole
from spectrain.studies.two_layer import circle, even_angles

CONVERGED = 1e-6  # of |y|, the training residual at which a network counts as trained
RANK = 5  # of flatten and power on the training points
Learned = tuple[Float[Tensor, "m 1"], float]  # predictions on the test points, |r| / |y| on the training points


@dataclass
class Problem:
    """sin a + cos(2 a) / 2 at n points of the circle, to be predicted at m others."""

    points: int
    test_points: int = 200
    x: Tensor = field(init=False)
    y: Tensor = field(init=False)
    z: Tensor = field(init=False)

    def __post_init__(self) -> None:
        angle = even_angles(self.points)
        self.x, self.z = circle(angle), circle(even_angles(self.test_points))
        self.y = (torch.sin(angle) + 0.5 * torch.cos(2 * angle))[:, None]

    def trained(self, network: nn.Module, S: SamplePreconditioner, g_max: float, most: int) -> Learned:
        """Descent with steps of 1 / (2 g_max) on S of the first kernel until |r| <= CONVERGED |y|, `most` at most."""
        left = 1.0
        for _, r in islice(descend(network, self.x, self.y, S, lambda _: 0.5 / g_max), most + 1):
            left = float(r.norm() / self.y.norm())
            if left <= CONVERGED:
                break
        with torch.no_grad():
            return network(self.z), left

    def regression(self, kernel: Callable[[Tensor, Tensor], Tensor], network: nn.Module) -> Float[Tensor, "m 1"]:
        """f_0 + k(z, X) K^-1 (y - f_0): what the linearised network ends in."""
        with torch.no_grad():
            fitted = KernelRegression(kernel, ridge=0.0).fit(self.x, self.y - network(self.x))
            f: Tensor = network(self.z) + fitted.predict(self.z)
        return f


def relative(f: Tensor, reference: Tensor) -> float:
    """|f - reference| / |reference|."""
    return float((f - reference).norm() / reference.norm())


def check(study: Any) -> None:
    """Raise InputError for widths, repeats, points or steps that cannot be used."""
    check_whole(study, "widths", "repeats", "most_steps")
    check_whole(study, "points", least=RANK + 2)
    if not isinstance(study.widths, Sequence) or len(set(study.widths)) < 2:
        raise InputError(
            f"study.widths={study.widths!r} cannot be used; a slope needs at least two widths, as [64, 256]."
        )


def slope(widths: Sequence[int], values: np.ndarray) -> float:
    """The least-squares exponent p of values ~ width^p."""
    return float(np.polyfit(np.log(widths), np.log(values), 1)[0])


def rate_arrays(widths: Sequence[int], error: np.ndarray, name: list[str], ylabel: str) -> dict[str, Any]:
    """The arguments of `plots.rate_figure`."""
    return {"size": np.array(widths), "error": error, "name": name, "xlabel": "width", "ylabel": ylabel}
