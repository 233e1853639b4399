"""One gradient of a small network under each preconditioner, in one process or shared over ranks."""

from typing import Any

import torch
from torch import Tensor

from spectrain import BatchPreconditioner, ParameterPreconditioner, SamplePreconditioner, spectral_maps
from spectrain.errors import InputError
from spectrain.models import mlp
from spectrain.preconditioners import softmax_hessian
from spectrain.preconditioners.ranks import mean_over_ranks
from spectrain.spectrum import spectrum

N, RANK = 60, 5
g = spectral_maps.power(0.8)
# The way (krylov: K stays with the ranks); the points of the global batch (13 are too few for Cholesky, 4 fewer than
# the modes); the extension.
CASES = [
    ("trace", 41, "exact"),
    ("krylov", 41, "exact"),
    ("krylov", 41, "nystrom"),
    ("trace", 13, "exact"),
    ("trace", 4, "exact"),
    ("trace", 41, "interpolate"),
    ("trace", 41, "nystrom"),
    ("each", 41, "exact"),
    ("full", 41, "nystrom"),
    ("curved", 41, "nystrom"),
    ("parameter", 41, "exact"),
    ("parameter", 41, "nystrom"),
    ("bfloat16", 41, "exact"),
    ("batch", 41, "exact"),
]


def make(way: str) -> SamplePreconditioner | ParameterPreconditioner | BatchPreconditioner:
    if way == "batch":
        return BatchPreconditioner(g, layers=None)
    if way in ("parameter", "bfloat16"):
        return ParameterPreconditioner(g, None if way == "parameter" else way)
    if way == "curved":
        return SamplePreconditioner(g, "full", softmax_hessian)
    return SamplePreconditioner(g, "trace" if way == "krylov" else way)


def gradients(way: str, points: int, extension: str, shard: tuple[int, int]) -> tuple[list[Tensor], list[Any]]:
    """Those of the loss of the whole batch, and the basis that S holds."""
    rank, world = shard
    torch.manual_seed(0)
    network = mlp(2, 2, width=12, depth=2).double()
    x, y = torch.rand(N, 2).double(), torch.randn(N, 2).double()
    S = make(way)
    S.shared = world > 1
    spectrum._DENSE_UP_TO = 0 if way == "krylov" else 256  # type: ignore[attr-defined]
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
    basis = []
    if isinstance(S, ParameterPreconditioner):
        basis = [S._inverse, S._lowered]
    elif isinstance(S, SamplePreconditioner):
        basis = [t for t, _ in S._blocks]
    return [p.grad for p in network.parameters()], basis


def sharded(shard: tuple[int, int], saved: dict[str, Any] | None = None) -> dict[str, Any]:
    """The numbers of U that this rank holds, a step with it (or with that of a `saved` state), and the state after."""
    rank, world = shard
    torch.manual_seed(0)
    network = mlp(2, 2, width=12, depth=2).double()  # its last bias has fewer entries than there are ranks
    x, y = torch.rand(N, 2).double(), torch.randn(N, 2).double()
    P = ParameterPreconditioner(g)
    P.shared = world > 1
    optimizer = P.wrap(torch.optim.SGD(network.parameters(), lr=0.1))
    if saved is None:
        P.refresh(network, x, rank=RANK)
    else:
        optimizer.load_state_dict(saved)
    found: dict[str, Any] = {"numbers": P.nbytes // 8}
    (network(x) - y).square().mean().backward()
    network[0].weight.grad = network[0].weight.grad.T.contiguous().T  # as a backward pass may leave it
    optimizer.step()
    found["weights"] = [p.detach().clone() for p in network.parameters()]
    if world > 1:
        try:
            optimizer.state_dict()
        except InputError as error:
            found["error"] = str(error)
    optimizer.consolidate_state_dict()
    if rank == 0:
        found["saved"] = optimizer.state_dict()
    return found
