"""A residual vector and its Jacobian at the present weights, as second-order steps need them.

Legend: n residuals, P parameters (of all tensors, flattened one after the other).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spectrain.errors import InputError

# Rows of J that one batched backward makes at a time: memory for that many graphs.
_ROWS = 128


class Linearization(ABC):
    """``r(w + d) ~ r + J d``.

    Attributes:
        r: the residual vector [n], without a graph.
        parameters: P.
        shapes: those of the tensors that d is split into, where they are known.
    """

    r: Float[Tensor, " n"]
    parameters: int
    shapes: tuple[torch.Size, ...] | None = None

    @abstractmethod
    def gram(self) -> Float[Tensor, "n n"]:
        """``K = J J^T``."""

    @abstractmethod
    def jacobian(self) -> Float[Tensor, "n P"]:
        """J itself."""

    @abstractmethod
    def columns(self, index: Int[Tensor, " m"]) -> Float[Tensor, "n m"]:
        """Those columns of K."""

    def diagonal(self) -> Float[Tensor, " n"]:
        """That of ``J J^T``, without the rest."""
        return self.jacobian().square().sum(1)

    def normal(self) -> Float[Tensor, "P P"]:
        """``J^T J``."""
        J = self.jacobian()
        return J.T @ J

    @abstractmethod
    def push(self, d: Float[Tensor, " P"]) -> Float[Tensor, " n"]:
        """``J d``."""

    @abstractmethod
    def pull(self, v: Float[Tensor, " n"]) -> Float[Tensor, " P"]:
        """``J^T v``."""


class DenseLinearization(Linearization):
    """With J in memory."""

    def __init__(self, r: Float[Tensor, " n"], J: Float[Tensor, "n P"]) -> None:
        self.r, self._J, self.parameters = r, J, J.shape[1]

    def gram(self) -> Float[Tensor, "n n"]:
        """``J J^T``."""
        return self._J @ self._J.T

    def columns(self, index: Int[Tensor, " m"]) -> Float[Tensor, "n m"]:
        """``J J[index]^T``."""
        return self._J @ self._J[index].T

    def jacobian(self) -> Float[Tensor, "n P"]:
        """J."""
        return self._J

    def push(self, d: Float[Tensor, " P"]) -> Float[Tensor, " n"]:
        """``J d``."""
        return self._J @ d

    def pull(self, v: Float[Tensor, " n"]) -> Float[Tensor, " P"]:
        """``J^T v``."""
        return self._J.T @ v


def linearize(r: Float[Tensor, " n"], parameters: Sequence[Tensor]) -> Linearization:
    """Of any residual vector with a graph, by one backward for every row of J.

    Raises:
        InputError: it is not a finite vector.
    """
    blocks = []
    for rows in torch.eye(len(checked_residuals(r)), dtype=r.dtype, device=r.device).split(_ROWS):
        grads = torch.autograd.grad(
            r, parameters, rows, is_grads_batched=True, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        # The zeros of a parameter that has no part in r come without the rows.
        whole = (g.expand(len(rows), *p.shape).flatten(1) for g, p in zip(grads, parameters, strict=True))
        blocks.append(torch.cat(list(whole), 1))
    return DenseLinearization(r.detach(), torch.cat(blocks))


def checked_residuals(r: Tensor) -> Float[Tensor, " n"]:
    """The residuals, if they are one finite vector; otherwise InputError."""
    if r.ndim != 1 or not bool(torch.isfinite(r).all()):
        bad = f"of shape {tuple(r.shape)}" if r.ndim != 1 else "with values that are not finite"
        raise InputError(f"The residuals are {bad}; a Gauss-Newton step needs one finite vector [n], loss |r|^2 / 2.")
    return r
