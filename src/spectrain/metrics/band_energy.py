"""Where in the spectrum the residual is.

Letters: n points, k modes, C outputs, b points of a chunk, B bands.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from spectrain.errors import InputError
from spectrain.spectrum import Spectrum
from spectrain.spectrum.measures import default_bands


class BandEnergy(Metric):  # type: ignore[misc]
    """Energy of the residual per band of modes, from chunks of points in any order and on any number of ranks.

    E_j = sum_{i in band j} |sum_chunks V[index, i]^T r|^2 / n, and last what lies outside the modes held; together
    |r|^2 / n. Band j holds the modes edges[j] .. edges[j+1]-1 (default: 0, 1, 2, 4, 8, .., k).

    `update(residual [b, C], index [b])` with the points' rows in the spectrum, each point once;
    `compute()` -> {"band_0": .., "band_1": .., ..}, scalars. Raises InputError when not all n points were given once.
    `sync_on_compute=False`: not summed over ranks, each of which was given all points.
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False
    projected: Tensor
    squares: Tensor
    points: Tensor
    eigenvectors: Tensor

    def __init__(
        self, spectrum: Spectrum, outputs: int, edges: Sequence[int] | None = None, *, sync_on_compute: bool = True
    ) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.edges = default_bands(spectrum.rank) if edges is None else list(edges)
        self.register_buffer("eigenvectors", spectrum.eigenvectors, persistent=False)
        double = torch.float64
        self.add_state("projected", torch.zeros(spectrum.rank, outputs, dtype=double), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros((), dtype=double), dist_reduce_fx="sum")
        self.add_state("points", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, residual: Float[Tensor, "b C"], index: Int[Tensor, "b"]) -> None:
        """Add b points."""
        r = residual.to(self.projected)
        self.projected += self.eigenvectors[index].T @ r
        self.squares += r.square().sum()
        self.points += len(index)

    def compute(self) -> dict[str, Tensor]:
        """The energies; their sum is |r|^2 / n."""
        n = len(self.eigenvectors)
        if int(self.points) != n:
            raise InputError(f"BandEnergy was given {int(self.points)} points; its spectrum has {n}, each wanted once.")
        energy = self.projected.square().sum(1) / n
        bands = [energy[a:b].sum() for a, b in pairwise(self.edges)]
        rest = (self.squares / n - energy[self.edges[0] : self.edges[-1]].sum()).clamp(min=0)
        return {f"band_{j}": value for j, value in enumerate([*bands, rest])}
