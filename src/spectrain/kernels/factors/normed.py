"""Weight normalisation: the weight is W = g v / |v|, row by row, and its parameters are g and v.

Legend: n points, C outputs, d inputs and o outputs of a layer (all groups), q a chunk of the outputs of one group.
With s = g / |v| and unit = v / |v|, the row r of the weight gives

    df/dg_r = dW_r . unit_r,    df/dv_r = s_r (dW_r - unit_r (unit_r . dW_r)),    dW_r = df/dW_r

The projection is symmetric and idempotent, so <df/dv, df'/dv> = <s dW, s dW'> - (s df/dg) . (s df'/dg): the layer Gram
of the plain layer, and a correction of o numbers per point.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from spectrain.kernels.factors.base import Dense, Factor, Sizes


@dataclass(frozen=True)
class Normed(Factor):
    """The gradient with respect to v: `plain`, that of s W, less its part along v, `along` = s df/dg."""

    plain: Factor
    along: Float[Tensor, "n C o"]
    unit: Float[Tensor, "o d"]

    def tensors(self) -> tuple[Tensor, ...]:
        """Those of the plain layer, and the part along v."""
        return (*self.plain.tensors(), self.along)

    def like(self, tensors: Sequence[Tensor]) -> "Normed":
        """The same layer at other points."""
        return replace(self, plain=self.plain.like(tensors[:-1]), along=tensors[-1])

    @property
    def sizes(self) -> Sizes:
        """The plain layer's."""
        return self.plain.sizes

    def columns(self, start: int, stop: int, room: Tensor | None = None) -> Float[Tensor, "n C q"]:
        """The projection, formed."""
        sizes = self.sizes
        shape = (sizes.groups, sizes.outputs)
        along = self.along.view(*self.along.shape[:2], *shape, 1)[:, :, :, start:stop]
        unit = self.unit.view(*shape, -1)[:, start:stop]
        return self.plain.columns(start, stop) - (along * unit).flatten(2)

    def terms(self) -> tuple[tuple[float, Factor], ...]:
        """The plain layer's Gram less the correction."""
        return ((1.0, self.plain), (-1.0, Dense(self.along)))

    def output(self, c: int) -> "Normed":
        """Both parts, of one output alone."""
        return replace(self, plain=self.plain.output(c), along=self.along[:, c : c + 1])

    def with_outputs(self, C: int) -> "Normed":
        """Both parts, repeated."""
        return replace(self, plain=self.plain.with_outputs(C), along=self.along.expand(-1, C, -1))
