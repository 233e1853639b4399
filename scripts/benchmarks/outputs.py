"""Which kernel of several outputs: cross-entropy on scikit-learn's digits.

    python scripts/benchmarks/outputs.py

1,200 training and 597 test images, an MLP 2x128 in standard parameterisation, 60 full-batch steps of Nesterov (.9) at
each of three rates; S with power .5 from 100 random landmarks, refreshed at steps 0, 5, 10, 20, 40. The full kernels
have ten times as many modes as the others, since they share them among ten outputs. Losses at the rate with the
smallest training loss; CPU seconds with everything charged.
"""

import math
import time

import torch
from sklearn.datasets import load_digits

from spectrain import SamplePreconditioner, spectral_maps
from spectrain.models import mlp
from spectrain.preconditioners import softmax_hessian

STEPS, EVERY, MODES, LANDMARKS = 60, 20, 20, 100
KINDS = {
    "without": None,
    "trace": {"outputs": "trace"},
    "each": {"outputs": "each"},
    "full": {"outputs": "full"},
    "full, softmax Hessian": {"outputs": "full", "curvature": softmax_hessian},
}


def train(kind: str, rate: float, data: tuple[torch.Tensor, ...]) -> tuple[float, ...]:
    """Training loss after 20 and 60 steps, test loss, test accuracy, CPU seconds."""
    x, y, x_test, y_test = data
    torch.manual_seed(0)
    network = mlp(64, 10, width=128, depth=2, parameterization="standard")
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, nesterov=True)
    settings = KINDS[kind]
    S = None if settings is None else SamplePreconditioner(spectral_maps.power(0.5), **settings)
    rank = 10 * MODES if settings and settings["outputs"] == "full" else MODES
    losses, begun = [], time.process_time()
    for step in range(STEPS):
        if S is not None and (step % EVERY == 0 or step in (EVERY // 4, EVERY // 2)):
            S.refresh(network, x, rank=rank, subset_size=LANDMARKS)
        output = network(x)
        loss = torch.nn.functional.cross_entropy(output if S is None else S(output), y)
        losses.append(float(loss.detach()))
        if not losses[-1] < 100:
            return math.inf, math.inf, math.inf, 0.0, time.process_time() - begun
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = time.process_time() - begun
    with torch.no_grad():
        output = network(x_test)
    test = float(torch.nn.functional.cross_entropy(output, y_test))
    return losses[19], losses[-1], test, float((output.argmax(1) == y_test).double().mean()), seconds


def main() -> None:
    torch.set_num_threads(1)
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(images / 8 - 1).float()[order], torch.tensor(labels)[order]
    data = x[:1200], y[:1200], x[1200:], y[1200:]
    for kind in KINDS:
        results = {rate: train(kind, rate, data) for rate in (0.1, 0.3, 1.0)}
        rate = min(results, key=lambda rate: results[rate][1])
        values = "{:.4f} | {:.1e} | {:.3f} | {:.3f} | {:.1f}".format(*results[rate])
        print(f"| {kind} | {rate:g} | {values} |", flush=True)


if __name__ == "__main__":
    main()
