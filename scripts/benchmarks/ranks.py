"""Weak scaling of a refresh's kernel: `python scripts/benchmarks/ranks.py`; each rank pinned to a core of its own.

With R ranks the kernel is on m sqrt(R) landmarks, so that each rank computes m^2 entries. Prints flops (torch's
counter) and the median CPU seconds and wall seconds per rank, with 1 and 2 ranks in turns, and the load of the machine.
"""

import os
import statistics
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import spectrain

LANDMARKS, WIDTH, REPEATS, ROUNDS = 1024, 256, 5, 3


def problem(ranks: int) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 3))
    return network, torch.rand(int(LANDMARKS * ranks**0.5), 2)


def measure(rank: int, ranks: int, port: int, results: mp.Queue) -> None:
    os.sched_setaffinity(0, {rank})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=ranks, rank=rank)
    network, x = problem(ranks)
    times = []
    for _ in range(REPEATS + 1):
        dist.barrier()
        wall, cpu = time.perf_counter(), time.process_time()
        spectrain.empirical_ntk(network, x, process_group=dist.group.WORLD)
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    results.put([statistics.median(column) for column in zip(*times[1:], strict=True)])
    dist.destroy_process_group()


def main() -> None:
    network, x = problem(1)
    with FlopCounterMode(display=False) as counter:
        spectrain.empirical_ntk(network, x)
    print(f"{counter.get_total_flops() / 1e9:.2f} Gflop for {LANDMARKS} landmarks; load {os.getloadavg()[0]:.1f}")
    context = mp.get_context("spawn")
    for turn in range(ROUNDS):
        for ranks in (1, 2):
            results = context.Queue()
            workers = [
                context.Process(target=measure, args=(r, ranks, 29500 + 10 * turn + ranks, results))
                for r in range(ranks)
            ]
            for worker in workers:
                worker.start()
            found = [results.get(timeout=300) for _ in workers]
            for worker in workers:
                worker.join()
            cpu, wall = (max(column) for column in zip(*found, strict=True))
            print(f"{ranks} rank(s): {cpu:.3f} CPU s, {wall:.3f} s", flush=True)


if __name__ == "__main__":
    main()
