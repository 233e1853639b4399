"""What the ranks of torch.distributed do together: sums, rows, results that are the same bits on all of them.

Everything here takes `shared`, whether the batch (or the work) is shared over the ranks of the default group, and is
the identity where it is not. All ranks must call in the same order. gloo and NCCL by the same code.

A global batch of n points, n_r of them on rank r of R. DistributedDataParallel averages gradients; with the loss of
each rank weighted by ``R n_r / n`` (`MeanOverRanks`), rank r's output gradient is ``R`` times its rows of the global
c, and the average of ``J_r^T (R (S c)_r)`` is ``J^T S c`` for shares of any sizes. S is linear, so what it needs are
sums over ranks of k x k and k x C numbers: ``rows^T rows`` and ``rows^T c``.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float, Integer
from torch import Tensor
from torch.autograd.function import once_differentiable

from spectrain.errors import InputError
from spectrain.kernels import rank_rows
from spectrain.spectrum import Spectrum

T = TypeVar("T")


def is_of_a_collective(error: Exception) -> bool:
    """Whether torch.distributed raised it: another rank has died or hangs, and nothing here can go on."""
    words = ("gloo/", "pair closure", "NCCL")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)


def group(shared: bool) -> dist.ProcessGroup | None:
    """The default group, or None."""
    return dist.group.WORLD if shared else None


def total(values: Tensor, shared: bool) -> Tensor:
    """The sum over ranks: the same bits on all of them."""
    if shared:
        values = values.contiguous()
        dist.all_reduce(values)
    return values


def largest(value: Tensor, shared: bool) -> Tensor:
    """The maximum over ranks."""
    if shared:
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def all_rows(rows: Float[Tensor, "r k"], shared: bool) -> tuple[Float[Tensor, "n k"], slice]:
    """The rows of all ranks, in their order, and where this rank's are."""
    if not shared:
        return rows, slice(None)
    ends = _counts(rows).cumsum(0).tolist()
    mine = slice(ends[dist.get_rank()] - len(rows), ends[dist.get_rank()])
    whole = rows.new_zeros(ends[-1], rows.shape[1])
    whole[mine] = rows
    dist.all_reduce(whole)
    return whole, mine


def _counts(rows: Tensor) -> Integer[Tensor, " ranks"]:
    """How many rows each rank has."""
    counts = torch.zeros(dist.get_world_size(), dtype=torch.long, device=rows.device)
    counts[dist.get_rank()] = len(rows)
    dist.all_reduce(counts)
    return counts


def interleaved(rows: Float[Tensor, "r *shape"], shared: bool) -> tuple[Float[Tensor, "n *shape"], Tensor | slice]:
    """The first row of each rank, then the second, ...: one process's batch, where rank r holds rows r, r + R, ....

    With the places of this rank's rows. The same bits on all ranks.
    """
    if not shared:
        return rows, slice(None)
    rank, counts = dist.get_rank(), _counts(rows)
    there = torch.arange(int(counts.max()), device=rows.device)[:, None] < counts
    whole = rows.new_zeros(*there.shape, *rows.shape[1:])
    whole[: len(rows), rank] = rows
    dist.all_reduce(whole)
    places = there.flatten().cumsum(0).view_as(there) - 1
    return whole[there], places[: len(rows), rank]


class FailedElsewhereError(InputError):
    """What went well here failed on another rank."""


def together(compute: Callable[[], T], shared: bool) -> T:
    """``compute()`` on every rank, or an error on every rank: those that went well would wait for the one that did not.

    Raises:
        FailedElsewhereError: it failed on another rank.
    """
    if not shared:
        return compute()
    error: Exception | None = None
    try:
        result = compute()
    except (RuntimeError, MemoryError, InputError) as failure:
        error = failure
    failed = _number(error is not None)
    dist.all_reduce(failed)
    if error is not None:
        raise error
    if bool(failed):
        raise FailedElsewhereError(f"It failed on {int(failed)} other rank(s); see their messages.")
    return result


def broadcast(values: Tensor, source: int) -> Tensor:
    """Those of one rank, on every rank: another processor may round the same sum to other bits."""
    values = values.contiguous()
    dist.broadcast(values, source)
    return values


def same_spectrum(compute: Callable[[], Spectrum], shared: bool) -> Spectrum:
    """What `compute` gives on rank 0, on every rank; all of them compute, so that none waits alone."""
    spectrum = together(compute, shared)
    if not shared:
        return spectrum
    scalars = spectrum.eigenvalues.new_tensor([spectrum.noise_floor, spectrum.trace])
    parts = [spectrum.eigenvalues, spectrum.eigenvectors, spectrum.residual_norms, scalars]
    values, vectors, residuals, scalars = (broadcast(part, 0) for part in parts)
    return Spectrum(values, vectors, residuals, float(scalars[0]), float(scalars[1]))


def columns_of_ranks(columns: int, shared: bool) -> list[slice]:
    """Which of the columns each rank computes."""
    return [rank_rows(columns, rank, count(shared)) for rank in range(count(shared))]


def count(shared: bool) -> int:
    """The number of ranks; 1 where nothing is shared."""
    return dist.get_world_size() if shared else 1


def my_rank(shared: bool) -> int:
    """0 where nothing is shared."""
    return dist.get_rank() if shared else 0


def mean_over_ranks(loss: Float[Tensor, ""], points: int) -> Float[Tensor, ""]:
    """The mean over the points of all ranks, of which `loss` is that over this rank's `points`.

    The value is the same on all ranks; the gradient is that of ``R n_r / n`` times this rank's loss, whose average over
    ranks, which DistributedDataParallel takes, is the gradient of the value.
    """
    share = torch.tensor(float(points), dtype=torch.float64, device=loss.device)
    everything = share.clone()
    dist.all_reduce(everything)
    value: Tensor = _MeanOverRanks.apply(loss, (share / everything).to(loss.dtype))  # type: ignore[no-untyped-call]
    return value


class _MeanOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, share: Tensor) -> Tensor:
        ctx.weight = dist.get_world_size() * share
        value = (loss * share).clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.weight, None


def _number(value: bool) -> Tensor:
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
    return torch.tensor(int(value), device=device)
