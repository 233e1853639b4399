"""What the parameter side costs, and when it is the side to take.

    python scripts/benchmarks/parameter_side.py overhead   # per step without refreshes, and of a refresh
    python scripts/benchmarks/parameter_side.py sides      # no preconditioner, sample side, parameter side, by base
    python scripts/benchmarks/parameter_side.py ages       # how fast each side's spectrum grows old

All on the camera picture, output bias at the mean, one thread, CPU seconds. "overhead" interleaves steps with and
without P_u in one process: 128x128, ReLU 3x512, batches of 4,096, SOAP. "sides" gives each run the same CPU seconds
(64x64, ReLU 3x256, full batch, refreshes charged); its schedule ends when its time does.
"ages": lambda_max of the preconditioned kernel over its value at the refresh, some steps of gradient descent later.
"""

import argparse
import time
from functools import partial
from typing import Any

import torch
from pytorch_optimizer import SOAP
from torch.nn.functional import mse_loss

from spectrain import (
    ParameterPreconditioner,
    SamplePreconditioner,
    largest_preconditioned_eigenvalue,
    spectral_maps,
)
from spectrain.data import ImageDataModule
from spectrain.lightning.automatic_rate import ITERATIONS, POINTS, WARM_ITERATIONS
from spectrain.models import center_output, mlp
from spectrain.optim import apply_scales, scaled_groups
from spectrain.preconditioners.step_size import measure_rate

SOAP_SETTINGS = {"betas": (0.95, 0.95), "precondition_frequency": 10, "weight_decay": 0.0}
# base: (optimizer, its rate, whether its steps are free of the gradient's scale); None is the automatic rate
BASES: dict[str, tuple[Any, float | None, bool]] = {
    "sgd": (lambda p, lr: torch.optim.SGD(p, lr), None, False),
    "nesterov": (lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True), None, False),
    "adam": (lambda p, lr: torch.optim.Adam(p, lr), 0.01, True),
    "soap": (lambda p, lr: SOAP(p, lr, **SOAP_SETTINGS), 0.01, True),
    "lbfgs": (lambda p, lr: torch.optim.LBFGS(p, lr, max_iter=5, line_search_fn="strong_wolfe"), 1.0, False),
}
RATE_OF_AGES = 0.25  # of 1/lambda_max, at which the parameter side lasts long enough to be measured
LANDMARKS, EVERY = {"sample": 576, "parameter": 256}, {"none": 20, "sample": 20, "parameter": 40}  # as in conf
SIDES = {"none": None, "sample": SamplePreconditioner, "parameter": ParameterPreconditioner}


def overhead(seed: int, rank: int) -> None:
    """CPU seconds of a step with P_u over one without, for each dtype of U; and of a refresh over a plain step."""
    for dtype, landmarks in ((None, 256), (None, 576), ("bfloat16", 256)):
        torch.manual_seed(seed)
        data = ImageDataModule(None, 128, batch_size=4096)
        network = mlp(2, 1, width=512, depth=3)
        base = apply_scales(SOAP(scaled_groups(network), 0.01, **SOAP_SETTINGS))
        # The last mode of a power map is its cut and keeps its ratio 1: one more gives `rank` columns.
        P = ParameterPreconditioner(spectral_maps.power(0.5), dtype)
        optimizer = P.wrap(base)
        begun = time.process_time()
        P.refresh(network, data.train_x, rank=rank + 1, subset_size=landmarks, grid_shape=data.grid_shape)
        cold = time.process_time() - begun
        begun = time.process_time()
        P.refresh(network, data.train_x, rank=rank + 1, subset_size=landmarks, grid_shape=data.grid_shape)
        warm = time.process_time() - begun
        batches, spent = iter(data.train_dataloader()), {False: 0.0, True: 0.0}
        for step in range(120):
            side = bool(step // 10 % 2)  # tens: SOAP does its dear step every tenth time
            x, y, _ = next(batches)
            begun = time.process_time()
            loss = mse_loss(network(x), y)
            base.zero_grad()
            loss.backward()
            (optimizer if side else base).step()
            spent[side] += (time.process_time() - begun) * (step >= 20)
        plain = spent[False] / 50
        print(
            f"k = {rank}, U {dtype or 'float32'} ({P.nbytes / 2**20:.0f} MiB): a step takes "
            f"{spent[True] / spent[False]:.3f} of a plain one ({plain:.3f} s); a refresh on {landmarks} landmarks "
            f"{warm / plain:.1f} plain steps ({cold / plain:.1f} the first)",
            flush=True,
        )


def run(base: str, side: str, rate: float | None, seconds: float, seed: int) -> tuple[float, int, float]:
    """Train for `seconds` of CPU time; final PSNR, steps, share of refreshes."""
    torch.manual_seed(seed)
    data = ImageDataModule(None, 64)
    x, y, index = next(iter(data.train_dataloader()))
    network = mlp(2, 1, width=256, depth=3)
    center_output(network, data.target_mean)
    make, _, scale_free = BASES[base]
    parameters = scaled_groups(network) if scale_free else network.parameters()
    optimizer = make(parameters, rate or 1.0)
    apply_scales(optimizer)
    rates = [group["lr"] for group in optimizer.param_groups]
    made = SIDES[side]
    preconditioner = None if made is None else made(spectral_maps.power(0.5))
    optimizer = optimizer if preconditioner is None else preconditioner.wrap(optimizer)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        output = network(x) if preconditioner is None else preconditioner.run(network, x, index)
        loss = mse_loss(output, y)
        loss.backward()
        return loss

    rows, vector = torch.randperm(len(x))[:POINTS], None  # as spectrain.lightning.AutomaticRate
    step, refreshing, factor, begun = 0, 0.0, 1.0, time.process_time()
    while (spent := time.process_time() - begun) < seconds:
        if step in (5, 10, 20) or step % EVERY[side] == 0:
            started = time.process_time()
            if not all(bool(p.isfinite().all()) for p in network.parameters()):  # it has diverged
                return float("nan"), step, refreshing / seconds
            if preconditioner is not None:
                preconditioner.refresh(network, x, rank=64, subset_size=LANDMARKS[side], grid_shape=data.grid_shape)
            if rate is None and (preconditioner is not None or step == 0):
                factor, vector = measure_rate(
                    network,
                    x[rows],
                    lambda f: mse_loss(f, y[rows]),
                    preconditioner,
                    index=rows,
                    batch_size=None,
                    momentum=optimizer.param_groups[0]["momentum"],
                    modes=None,
                    iterations=ITERATIONS if vector is None else WARM_ITERATIONS,
                    start=vector,
                )
            refreshing += time.process_time() - started
        decay = 1.0 if base == "lbfgs" else 0.5 * (1 + torch.cos(torch.tensor(torch.pi * spent / seconds)).item())
        for group, initial in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = initial * factor * decay
        optimizer.step(closure)
        step += 1
    with torch.no_grad():
        error = (network(x).clamp(-1, 1) - y).double().square().mean()
    return float(10 * torch.log10(4 / error)), step, refreshing / seconds


def sides(seconds: float, seeds: list[int]) -> None:
    """A table: PSNR in dB after `seconds`, base by base and side by side."""
    for base, (_, rate, _) in BASES.items():
        for side in SIDES:
            for seed in seeds:
                dB, steps, share = run(base, side, rate, seconds, seed)
                print(
                    f"{base:>9} {side:>10} seed {seed}: {dB:6.2f} dB, {steps} steps, refreshes {share:.0%}, "
                    f"rate {rate or 'auto'}",
                    flush=True,
                )


def ages(seed: int) -> None:
    """lambda_max some steps after a refresh over that at the refresh, 64x64, full batch, gradient descent."""
    later = (1, 2, 5, 10, 20)
    for width in (256, 1024):
        for side in ("sample", "parameter"):
            torch.manual_seed(seed)
            data = ImageDataModule(None, 64)
            x, y, index = next(iter(data.train_dataloader()))
            network = mlp(2, 1, width=width, depth=3)
            center_output(network, data.target_mean)
            preconditioner = SIDES[side](spectral_maps.power(0.5))
            preconditioner.refresh(network, x, rank=64, subset_size=LANDMARKS[side], grid_shape=data.grid_shape)
            rows = torch.randperm(len(x))[:POINTS]

            loss = partial(mse_loss, target=y[rows])
            largest = partial(
                largest_preconditioned_eigenvalue, network, x[rows], preconditioner, index=rows, loss=loss
            )
            first, grown = largest(), []
            optimizer = preconditioner.wrap(torch.optim.SGD(network.parameters(), RATE_OF_AGES / first))
            for step in range(1, later[-1] + 1):
                optimizer.zero_grad()
                mse_loss(preconditioner.run(network, x, index), y).backward()
                optimizer.step()
                if step in later:
                    grown.append(largest() / first)
            print(f"width {width:>4} {side:>9}: " + ", ".join(f"{g:.2f}" for g in grown) + f" after {later} steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["overhead", "sides", "ages"])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.task == "overhead":
        overhead(args.seed[0], args.rank)
    elif args.task == "ages":
        ages(args.seed[0])
    else:
        sides(args.seconds, args.seed)


if __name__ == "__main__":
    main()
