"""A basis U [P, k] of the parameters' space, its rows shared over the ranks of torch.distributed.

Letters: p numbers of one parameter, k modes, R ranks. Rank r owns the entries ``[r c, (r + 1) c)`` of each parameter,
c = ceil(p / R), and of U their rows: k p / R numbers. ``U^T g`` is then a sum over ranks of k numbers, and what is done
to g rank by rank is gathered: p numbers. Sharing the modes instead would need a sum over ranks of p numbers, which
sends twice as much. All ranks must call in the same order; where nothing is shared, a part is the whole.
"""

from collections.abc import Sequence
from functools import reduce

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from spectrain.preconditioners import ranks


def own_part(p: int, shared: bool) -> slice:
    """The entries of a parameter that this rank owns; none, where there are too few."""
    return _part(p, ranks.my_rank(shared), ranks.count(shared))


def _part(p: int, rank: int, world: int) -> slice:
    c = -(-p // world)
    return slice(min(p, rank * c), min(p, (rank + 1) * c))


def modes_to_rows(modes: Float[Tensor, "modes p"], k: int, shared: bool) -> Float[Tensor, "k part"]:
    """From U^T by modes, of which each rank has computed its `columns_of_ranks`, to U^T by entries of the parameter."""
    if not shared:
        return modes
    rank, world, p = dist.get_rank(), dist.get_world_size(), modes.shape[1]
    counts = [columns.stop - columns.start for columns in ranks.columns_of_ranks(k, shared)]
    parts = [_part(p, r, world) for r in range(world)]
    sent = torch.cat([modes[:, part].flatten() for part in parts])
    width = parts[rank].stop - parts[rank].start
    received = sent.new_empty(k * width)
    sizes = [counts[rank] * (part.stop - part.start) for part in parts]
    dist.all_to_all_single(received, sent, [count * width for count in counts], sizes)
    return received.view(k, width)


@torch.no_grad()
def gather_parts_(vectors: Sequence[Float[Tensor, " p"]], shared: bool) -> None:
    """Every rank's own part of each vector, on all ranks, in place: one collective for all vectors."""
    if not shared or not vectors:
        return
    world = dist.get_world_size()
    widths = [-(-len(v) // world) for v in vectors]
    kind = reduce(torch.promote_types, (v.dtype for v in vectors))
    everything = vectors[0].new_zeros(world, sum(widths), dtype=kind)
    mine = torch.zeros_like(everything[0])
    for v, part in zip(vectors, mine.split(widths), strict=True):
        own = v[own_part(len(v), shared)]
        part[: len(own)] = own
    dist.all_gather(list(everything), mine)
    for v, parts in zip(vectors, everything.split(widths, 1), strict=True):
        v.copy_(parts.reshape(-1)[: len(v)])


def whole_on_first(rows: Float[Tensor, "k part"], p: int) -> Float[Tensor, "k p"] | None:
    """U^T of a parameter on rank 0, in main memory; None on the others."""
    world = dist.get_world_size()
    mine = rows.new_zeros(len(rows), -(-p // world))
    mine[:, : rows.shape[1]] = rows
    parts = [torch.empty_like(mine) for _ in range(world)] if dist.get_rank() == 0 else None
    dist.gather(mine, parts)
    return None if parts is None else torch.cat(parts, 1)[:, :p].cpu()
