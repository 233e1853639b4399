"""Weak scaling of a refresh: `python scripts/benchmarks/ranks.py [LANDMARKS]`; each rank pinned to a core of its own.

R ranks take m sqrt(R) landmarks, so that each computes as many entries of the kernel. Measured are the kernel, a warm
start of its eigenpairs, and their interpolation to N points, which every rank does for itself. Prints the median CPU
seconds per rank, the slower one, in turns: one rank; two processes that each do one rank's work and know nothing of
each other (what cores that share caches, and other load, make of it); two ranks. gloo's waiting blocks and takes no CPU
time; its copies and its threads are counted. Efficiencies are those of two ranks, against the two processes and against
one. The flops are torch's count for the kernel on one rank.
"""

import os
import statistics
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spectrain import empirical_ntk
from spectrain.preconditioners.landmarks import choose_landmarks

PROBLEMS = (
    (1024, 256, 64),
    (1024, 512, 64),
    (2048, 256, 64),
    (2048, 512, 64),
    (4096, 256, 64),
)  # landmarks, width, modes
SIDE, REPEATS, ROUNDS = 128, 3, 3  # N = SIDE^2
KINDS = ("1 rank", "2 processes", "2 ranks")


def problem(landmarks: int, width: int) -> tuple[nn.Module, torch.Tensor, int]:
    """The network, the N points, and how many of the landmarks' grid points there are."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3))
    axis = torch.linspace(-1, 1, SIDE)
    return network, torch.cartesian_prod(axis, axis), landmarks


def measure(rank: int, kind: str, sizes: tuple[int, int, int], port: int, results: mp.Queue) -> None:
    os.sched_setaffinity(0, {rank})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=1 if kind == "1 rank" else 2, rank=rank)
    m, width, modes = sizes
    shared = kind == "2 ranks"
    network, x, m = problem(round(m * 2**0.5) if shared else m, width)
    chosen = choose_landmarks(x, m, grid_shape=(SIDE, SIDE))
    object.__setattr__(chosen, "shared", shared)
    basis, times = None, []
    for _ in range(REPEATS + 1):
        dist.barrier()
        begun = time.process_time()
        spectrum = chosen.spectrum(network, modes, basis)
        solved = time.process_time()
        chosen.extend(spectrum, x, network)
        times.append((solved - begun, time.process_time() - begun))
        basis = spectrum.eigenvectors
    results.put((chosen.count, *(statistics.median(column) for column in zip(*times[1:], strict=True))))
    dist.barrier()
    dist.destroy_process_group()


def run(kind: str, sizes: tuple[int, int, int], port: int) -> tuple[int, float, float]:
    """Landmarks, CPU seconds of kernel and eigenpairs, and of the whole refresh; the slower process."""
    context = mp.get_context("spawn")
    results = context.Queue()
    ranks = range(1 if kind == "1 rank" else 2)
    workers = [context.Process(target=measure, args=(rank, kind, sizes, port, results)) for rank in ranks]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=300) for _ in workers]
    for worker in workers:
        worker.join()
    return found[0][0], max(solved for _, solved, _ in found), max(whole for _, _, whole in found)


def main() -> None:
    port = 29500
    for sizes in PROBLEMS:
        if len(sys.argv) > 1 and sizes[0] != int(sys.argv[1]):
            continue
        network, x, m = problem(*sizes[:2])
        with FlopCounterMode(display=False) as counter:
            empirical_ntk(network, x[:m])
        print(
            f"{m} landmarks, width {sizes[1]}, {sizes[2]} modes: {counter.get_total_flops() / 1e9:.2f} Gflop",
            flush=True,
        )
        rounds = []
        for _ in range(ROUNDS):
            rounds.append([run(kind, sizes, port := port + 1) for kind in KINDS])
        for i, kind in enumerate(KINDS):
            found = [turn[i] for turn in rounds]
            solved, whole = ("  ".join(f"{turn[j]:.3f}" for turn in found) for j in (1, 2))
            print(f"  {kind:12} m = {found[0][0]}: spectrum {solved}; whole refresh {whole}", flush=True)
        ratios = ["  ".join(f"{100 * turn[i][2] / turn[2][2]:.0f} %" for turn in rounds) for i in (1, 0)]
        print(f"  efficiency {' or '.join(ratios)}; load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
