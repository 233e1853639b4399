"""A matrix that is known only by its products.

Letters: n points, b columns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Operator:
    """K as a function V [n, b] -> K V [n, b] that computes in `dtype`."""

    matmul: Callable[[Tensor], Tensor]
    n: int
    dtype: torch.dtype = torch.float64
    device: torch.device = torch.device("cpu")  # noqa: RUF009

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return (self.n, self.n)

    def __matmul__(self, V: Float[Tensor, "n b"], /) -> Float[Tensor, "n b"]:
        """K V, in V's own dtype."""
        return self.matmul(V.to(self.dtype)).to(V.dtype)
