"""The kernel shared over the ranks of a process group; gloo and NCCL by the same code.

Legend: n, m points, of which rank r owns the rows R_r of K.
Every rank computes its diagonal block, and of the block between two ranks r < s the lower one computes the first half
of the rows R_r and the higher one the rest, so that symmetry still saves half of the work and all do the same share.
Only blocks of K travel, and only between the two ranks that need them.
"""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from spectrain.errors import InputError
from spectrain.kernels.network import Inputs, rows_of, take_rows
from spectrain.kernels.run import Run

Kernels = dict[str, Tensor]


def world(group: ProcessGroup | None) -> int:
    """The number of ranks."""
    return 1 if group is None else dist.get_world_size(group)


def rank_rows(n: int, rank: int, ranks: int) -> slice:
    """The rows of K that a rank owns; sizes differ by at most one."""
    return slice(n * rank // ranks, n * (rank + 1) // ranks)


def shared(
    run: Run, x1: Inputs, x2: Inputs | None, group: ProcessGroup, *, gather: bool, out: Tensor | None
) -> Kernels:
    """Kernels by name: all rows, or this rank's where `gather` is False.

    Raises InputError on every rank if one of them fails.
    """
    rank, ranks, n = dist.get_rank(group), world(group), rows_of(x1)
    mine = rank_rows(n, rank, ranks)
    run.look(x1 if x2 is None or n >= rows_of(x2) else x2)
    run.show = run.show and rank == 0
    error: Exception | None = None
    parts: dict[int, Kernels] = {}
    try:
        if x2 is None:
            parts = {other: _own_share(run, x1, rank, other, ranks) for other in range(ranks)}
        elif mine.stop > mine.start:
            parts = {rank: run.kernels(take_rows(x1, mine), x2)}
    except (RuntimeError, ValueError) as failure:
        error = failure
    all_or_none(error, run.network.device, group)
    rows = _exchanged(run, parts, n, rank, ranks, group) if x2 is None else parts.get(rank, {})
    return _results(run, rows, x1, x1 if x2 is None else x2, group, gather=gather, out=out)


def _own_share(run: Run, x: Inputs, rank: int, other: int, ranks: int) -> Kernels:
    """This rank's part of the block between the rows of two ranks; empty where there are no points."""
    if rank == other:
        rows = rank_rows(rows_of(x), rank, ranks)
        return run.kernels(take_rows(x, rows), None) if rows.stop > rows.start else {}
    first, second = _halves(rows_of(x), min(rank, other), ranks)
    rows, columns = first if rank < other else second, rank_rows(rows_of(x), max(rank, other), ranks)
    if rows.stop == rows.start or columns.stop == columns.start:
        return {}
    return run.kernels(take_rows(x, rows), take_rows(x, columns))


def _halves(n: int, rank: int, ranks: int) -> tuple[slice, slice]:
    rows = rank_rows(n, rank, ranks)
    middle = (rows.start + rows.stop) // 2
    return slice(rows.start, middle), slice(middle, rows.stop)


def all_or_none(error: Exception | None, device: torch.device, group: ProcessGroup) -> None:
    """Without this, ranks that went well would wait for ever for one that did not.

    Raises:
        InputError: it failed on another rank. Or the error of this one.
    """
    failed = torch.tensor(0 if error is None else 1, device=device)
    dist.all_reduce(failed, group=group)
    if error is not None:
        raise error
    if int(failed):
        raise InputError(f"The kernel failed on {int(failed)} other rank(s) of the process group; see their messages.")


def _exchanged(run: Run, parts: dict[int, Kernels], n: int, rank: int, ranks: int, group: ProcessGroup) -> Kernels:
    """This rank's rows of a symmetric kernel, after every pair of ranks has swapped what the other needs."""
    rows = rank_rows(n, rank, ranks)
    result = _empty(run, rows.stop - rows.start, n)
    for names, block in parts[rank].items():
        result[names][:, rows] = block
    for low, high in _pairs(ranks):
        if rank not in (low, high):
            continue
        other = high if rank == low else low
        theirs, (first, second) = rank_rows(n, high, ranks), _halves(n, low, ranks)
        base = rank_rows(n, low, ranks).start
        shapes = {low: (first, theirs), high: (second, theirs)}
        for names in result:
            whole = _swap(run, parts[other].get(names), shapes, rank, other, group)
            for owner, block in whole.items():
                part = shapes[owner][0]
                if rank == low:
                    result[names][part.start - base : part.stop - base, theirs] = block
                else:
                    result[names][:, part] = block.transpose(0, 1) if block.ndim == 2 else block.permute(1, 0, 3, 2)
    return result


def _pairs(ranks: int) -> Iterator[tuple[int, int]]:
    return ((low, high) for low in range(ranks) for high in range(low + 1, ranks))


def _swap(
    run: Run, mine: Tensor | None, shapes: dict[int, tuple[slice, slice]], rank: int, other: int, group: ProcessGroup
) -> dict[int, Tensor]:
    """Both halves of the block between two ranks, by who computed them; the lower rank sends first."""
    buffers: dict[int, Tensor] = {}
    peer = dist.get_global_rank(group, other)
    for sender in sorted((rank, other)):
        rows, columns = shapes[sender]
        n, m = rows.stop - rows.start, columns.stop - columns.start
        if n == 0 or m == 0:
            continue
        if sender == rank:
            assert mine is not None
            buffers[sender] = mine.contiguous()
            dist.send(buffers[sender], peer, group=group)
        else:
            buffers[sender] = next(iter(_empty(run, n, m).values()))
            dist.recv(buffers[sender], peer, group=group)
    return buffers


def _empty(run: Run, n: int, m: int) -> Kernels:
    seen = run.look(None)
    shape = (n, m, seen.C, seen.C) if run.outputs == "full" else (n, m)
    names = tuple(run.network.params) if run.apart else ("",)
    return {name: torch.zeros(shape, dtype=run.network.dtype, device=run.network.device) for name in names}


def _results(
    run: Run, rows: Kernels, x1: Inputs, x2: Inputs, group: ProcessGroup, *, gather: bool, out: Tensor | None
) -> Kernels:
    rank, ranks, n, m = dist.get_rank(group), world(group), rows_of(x1), rows_of(x2)
    mine = rank_rows(n, rank, ranks)
    rows = rows or _empty(run, mine.stop - mine.start, m)
    if not gather:
        return rows if out is None else {name: _into(out, K) for name, K in rows.items()}
    whole: Kernels = {}
    for name in rows:
        target: Tensor | None = None
        for r in range(ranks):
            part = rank_rows(n, r, ranks)
            if part.stop == part.start:
                continue
            block = (
                rows[name].contiguous() if r == rank else next(iter(_empty(run, part.stop - part.start, m).values()))
            )
            dist.broadcast(block, dist.get_global_rank(group, r), group=group)
            target = block.new_zeros(n, *block.shape[1:]) if target is None and out is None else target
            (out if target is None else target)[part] = block  # type: ignore[index]
        whole[name] = out if target is None else target  # type: ignore[assignment]
    return whole


def _into(out: Tensor, K: Tensor) -> Tensor:
    if out.shape != K.shape:
        raise InputError(f"out has shape {tuple(out.shape)}; this rank's rows need {tuple(K.shape)}.")
    return out.copy_(K)
