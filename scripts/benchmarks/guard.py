"""Plain gradient descent with 256 modes reshaped: divergence without the guard, and with it against Nesterov.

    python scripts/benchmarks/guard.py --size 64 --steps 150
    python scripts/benchmarks/guard.py --overhead           # of a step, for SGD and SOAP, without refreshes

Camera, ReLU 3x256 in NTK parameterisation, full batch, one thread, constant rates. S: rank 256 from 1,024 landmarks,
refreshed at 0, 5, 10, 20, 40, 60, ...; rate 1 / (2 max_i g_i) of the first spectrum, nothing tuned. Nesterov (momentum
.9) at each of `--rates`; "equal time" gives its best rate as many steps as fill the CPU time of the guarded run.
"""

import argparse
import math
import time
import warnings
from collections.abc import Callable

import torch
from pytorch_optimizer import SOAP
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.optim import Optimizer

from spectrain import Guard, SamplePreconditioner, choose_landmarks, spectral_maps
from spectrain.data import ImageDataModule
from spectrain.models import center_output, mlp
from spectrain.preconditioners.refresh import last_due

RANK, LANDMARKS, EVERY = 256, 1024, 20
Losses = list[tuple[float, float]]  # (CPU seconds, loss)


def start(data: ImageDataModule) -> torch.nn.Module:
    torch.manual_seed(0)
    network = mlp(2, 1, width=256, depth=3)
    center_output(network, data.target_mean)
    return network


def nesterov(data: ImageDataModule, rate: float, steps: int) -> Losses:
    network = start(data)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, nesterov=True)
    return train(optimizer, lambda: mse_loss(network(data.train_x), data.train_y), lambda _: None, steps)


def preconditioned(
    data: ImageDataModule, alpha: float, momentum: float, steps: int, guarded: bool = True
) -> tuple[Losses, Guard | None]:
    network, x, y = start(data), data.train_x, data.train_y
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, momentum=momentum, nesterov=momentum > 0)
    S = SamplePreconditioner(spectral_maps.power(alpha))
    guard = Guard(S, network, optimizer) if guarded else None
    landmarks, spectra = choose_landmarks(x, LANDMARKS, grid_shape=data.grid_shape), []

    def refresh(step: int) -> None:
        if step != last_due(step, EVERY):
            return
        spectra.append(landmarks.spectrum(network, RANK, spectra[-1].eigenvectors if spectra else None))
        S.update(landmarks.extend(spectra[-1], x, network))
        if guard is not None:
            guard.take(spectra[-1])
        if step == 0:
            largest = (spectra[0].eigenvalues * spectra[0].ratio(S.spectral_map)).max()
            optimizer.param_groups[0]["lr"] = float(1 / (2 * largest))  # the Hessian of the mean square is 2 K / n

    def evaluate() -> Tensor:
        return mse_loss(S(network(x)), y)

    loss = evaluate if guard is None else lambda: guard.loss(evaluate, x)
    return train(optimizer, loss, refresh, steps), guard


def train(optimizer: Optimizer, evaluate: Callable[[], Tensor], refresh: Callable[[int], None], steps: int) -> Losses:
    begun, losses = time.process_time(), []
    for step in range(steps):
        refresh(step)
        loss = evaluate()
        losses.append((time.process_time() - begun, float(loss.detach())))
        if not math.isfinite(losses[-1][1]):
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def show(name: str, losses: Losses) -> None:
    seconds, loss = losses[-1]
    result = f"{-10 * math.log10(loss / 4):6.2f} dB" if math.isfinite(loss) else "diverged "
    print(f"  {name:<44}{len(losses):>5} steps  {result}  {seconds:5.1f} CPU s", flush=True)


def compare(size: int, steps: int, rates: list[float]) -> None:
    data = ImageDataModule(size=size, grayscale=True)
    print(f"camera {size}x{size}")
    show("S alone: flatten", preconditioned(data, 1.0, 0.0, steps, guarded=False)[0])
    best, level = rates[0], math.inf
    for rate in rates:
        losses = nesterov(data, rate, steps)
        show(f"Nesterov, rate {rate:g}", losses)
        if losses[-1][1] < level:
            best, level = rate, losses[-1][1]
    longest = 0.0
    for alpha, momentum in ((1.0, 0.0), (0.5, 0.0), (0.5, 0.9)):
        losses, guard = preconditioned(data, alpha, momentum, steps)
        assert guard is not None
        longest = max(longest, losses[-1][0])
        kind = "Nesterov" if momentum else "plain"
        counts = f"{guard.shrunk_steps} shrunk, {guard.rejected_steps} back"
        show(f"S, guard, {kind}, power {alpha:g} ({counts})", losses)
    each = nesterov(data, best, 20)[-1][0] / 20
    show(f"Nesterov, rate {best:g}, equal time", nesterov(data, best, round(longest / each)))


def overhead() -> None:
    """A step with S and guard over one with S alone, in turn, ten at a time; the full batch of 64x64."""
    data = ImageDataModule(size=64, grayscale=True)
    x, y = data.train_x, data.train_y
    makers: dict[str, Callable[..., Optimizer]] = {"sgd": torch.optim.SGD, "soap": SOAP}
    for name, make in makers.items():
        sides = []
        for guarded in (False, True):
            network = start(data)
            optimizer = make(network.parameters(), lr=1e-3)
            S = SamplePreconditioner(spectral_maps.power(0.7))
            spectrum = S.refresh(network, x, rank=128, subset_size=576, grid_shape=data.grid_shape)
            guard = Guard(S, network, optimizer, rescale=name == "sgd") if guarded else None
            if guard is not None:
                guard.take(spectrum)
            sides.append((network, optimizer, S, guard))
        spent = [0.0, 0.0]
        for step in range(120):
            side = step // 10 % 2  # tens: SOAP does its dear step every tenth time
            network, optimizer, S, guard = sides[side]
            begun = time.process_time()

            def evaluate(network: torch.nn.Module = network, S: SamplePreconditioner = S) -> Tensor:
                return mse_loss(S(network(x)), y)

            loss = evaluate() if guard is None else guard.loss(evaluate, x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            spent[side] += (time.process_time() - begun) * (step >= 20)
        print(f"{name}: a step with the guard takes {spent[1] / spent[0]:.3f} of one without")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    parser.add_argument("--overhead", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if args.overhead:
        overhead()
    else:
        compare(args.size, args.steps, args.rates)


if __name__ == "__main__":
    main()
