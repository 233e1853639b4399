"""One gradient of a small network under each preconditioner, in one process or shared over ranks."""

from typing import Any

import torch
from torch import Tensor

from spectrain import ParameterPreconditioner, SamplePreconditioner, spectral_maps
from spectrain.models import mlp
from spectrain.preconditioners import softmax_hessian
from spectrain.preconditioners.ranks import mean_over_ranks

N, RANK = 60, 5
g = spectral_maps.power(0.8)
# The way; the points of the global batch (13: too few for Cholesky, 4: fewer than the modes); the extension.
CASES = [
    ("trace", 41, "exact"),
    ("trace", 13, "exact"),
    ("trace", 4, "exact"),
    ("trace", 41, "interpolate"),
    ("trace", 41, "nystrom"),
    ("each", 41, "exact"),
    ("full", 41, "nystrom"),
    ("curved", 41, "nystrom"),
    ("parameter", 41, "exact"),
    ("bfloat16", 41, "exact"),
]


def make(way: str) -> SamplePreconditioner | ParameterPreconditioner:
    if way in ("parameter", "bfloat16"):
        return ParameterPreconditioner(g, None if way == "parameter" else way)
    if way == "curved":
        return SamplePreconditioner(g, "full", softmax_hessian)
    return SamplePreconditioner(g, way)


def gradients(way: str, points: int, extension: str, shard: tuple[int, int]) -> tuple[list[Tensor], list[Any]]:
    """Those of the loss of the whole batch, and the basis that S holds."""
    rank, world = shard
    torch.manual_seed(0)
    network = mlp(2, 2, width=12, depth=2).double()
    x, y = torch.rand(N, 2).double(), torch.randn(N, 2).double()
    S = make(way)
    S.shared = world > 1
    count = N if extension == "exact" else 30
    for _ in range(2):  # the second one starts warm
        S.refresh(network, x, rank=RANK, subset_size=count, extension=extension)
    optimizer = S.wrap(torch.optim.SGD(network.parameters(), lr=0.0))
    index = torch.randperm(N)[:points]
    index = index[rank * (points // 3) :][: points // 3 if rank < world - 1 else None] if world > 1 else index
    trained = torch.nn.parallel.DistributedDataParallel(network) if world > 1 else network
    output = S.run(trained, x[index], index)
    loss = (output - y[index]).square().mean()
    (mean_over_ranks(loss, len(index)) if world > 1 else loss).backward()
    optimizer.step()
    basis = [*S._blocks.values(), S._inverse] if isinstance(S, ParameterPreconditioner) else [t for t, _ in S._blocks]
    return [p.grad for p in network.parameters()], basis
