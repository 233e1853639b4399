"""U of the parameter side shared over ranks: `python scripts/benchmarks/shared_basis.py`.

For 1, 2 and 4 ranks (gloo) prints the memory of U on a rank, how far the peak memory of its process rises in a refresh,
and the median CPU milliseconds per rank of a step's P_u g, with those of gloo's own threads.
"""

import os
import resource
import statistics
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from spectrain import ParameterPreconditioner, spectral_maps
from spectrain.models import mlp

POINTS, WIDTH, MODES, STEPS = 400, 768, 64, 11


def peak() -> float:
    """Peak memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(rank: int, ranks: int, port: int, results: mp.Queue) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=ranks, rank=rank)
    torch.manual_seed(0)
    network, x = mlp(2, 1, width=WIDTH, depth=4), torch.rand(POINTS, 2)
    P = ParameterPreconditioner(spectral_maps.power(0.5))
    P.shared = ranks > 1
    before = peak()
    P.refresh(network, x, rank=MODES)
    rise, parameters = peak() - before, list(network.parameters())
    gradients = [torch.randn_like(p) for p in parameters]
    times = []
    for _ in range(STEPS):
        begun = time.process_time()
        P.apply_(parameters, gradients)
        times.append(time.process_time() - begun)
    results.put((P.nbytes / 2**20, rise, 1e3 * statistics.median(times[1:]), sum(p.numel() for p in parameters)))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    context = mp.get_context("spawn")
    for ranks in (1, 2, 4):
        results = context.Queue()
        workers = [context.Process(target=measure, args=(r, ranks, 29600 + ranks, results)) for r in range(ranks)]
        for worker in workers:
            worker.start()
        U, rise, step, P = (max(column) for column in zip(*(results.get() for _ in workers), strict=True))
        for worker in workers:
            worker.join()
        print(
            f"{ranks} rank(s), P = {P:,}, k = {MODES}: U {U:.0f} MiB, peak in a refresh +{rise:.0f} MiB, "
            f"{step:.1f} CPU ms per step; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
