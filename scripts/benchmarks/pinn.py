"""Networks for differential equations: Gauss-Newton in sample space against the usual optimizers in equal CPU time.

    python scripts/benchmarks/pinn.py --task poisson2d --seconds 15 --seeds 0 1 2
    python scripts/benchmarks/pinn.py --task helmholtz heat burgers --seconds 15
    python scripts/benchmarks/pinn.py --task poisson2d --methods gauss_newton --seconds 30

Rules: float64, one thread, one process, two trials for every method (`METHODS`), of which the better one counts; with
`--trials 1` the first alone, with `--second` the second. CPU seconds include everything but the measurement of
errors, on points that nobody trains on. Adam and SOAP draw fresh points at every step, a `--part` of the task's;
L-BFGS needs fixed points, and has all of them; Gauss-Newton draws them every `resample` steps of its task (0: never).
`--fixed 3` leaves those who keep their points a third of them.
Adam and SOAP follow a cosine from their rate to 0 over the budget; Gauss-Newton and SPRING, with fresh points, hold 1
for three quarters of it, then the cosine. Energy natural gradient, as published, has all points and its own line
search. All have the same network, start, weights and forward-mode derivatives.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pytorch_optimizer import SOAP

from spectrain import SamplePreconditioner, Spectrum, spectral_maps
from spectrain.models import mlp, periodic
from spectrain.optim import GaussNewton
from spectrain.pde import Problem, Residuals
from spectrain.pde import equations as eq
from spectrain.pde.adaptive import draw_adaptively
from spectrain.pde.evaluation import evaluation_points, predict


class FasterKovasznay(eq.Kovasznay):
    """At the Reynolds number 100."""

    viscosity = 1 / 100


# equation, width, depth, points inside, on each condition, steps between fresh points for Gauss-Newton, target error
TASKS: dict[str, tuple[Callable[[], Any], int, int, int, int, int, float]] = {
    "poisson2d": (eq.Poisson, 64, 1, 900, 120, 0, 1e-3),
    "poisson2d_10pi": (lambda: eq.Poisson(frequency=10), 64, 3, 1200, 480, 1, 5e-2),
    "poisson5d": (lambda: eq.Poisson(5, solution="cosines"), 64, 1, 1000, 200, 1, 1e-2),
    "poisson10d": (lambda: eq.Poisson(10, solution="cosines"), 64, 1, 1000, 300, 1, 1e-2),
    "helmholtz": (eq.Helmholtz, 64, 2, 900, 120, 1, 5e-2),
    "heat": (eq.Heat, 64, 1, 900, 120, 0, 1e-3),
    "heat4d": (lambda: eq.Heat(4), 64, 1, 1000, 200, 1, 1e-2),
    "wave": (eq.Wave, 64, 2, 900, 120, 1, 5e-2),
    "burgers": (eq.Burgers, 20, 4, 1200, 120, 1, 1e-1),
    "allen_cahn": (eq.AllenCahn, 32, 3, 1200, 200, 1, 1e-1),
    "taylor_green": (eq.TaylorGreen, 32, 2, 400, 120, 1, 1e-2),
    "kovasznay": (eq.Kovasznay, 32, 2, 400, 120, 1, 1e-2),
    "kovasznay_re100": (FasterKovasznay, 32, 2, 400, 120, 1, 1e-2),
    "l_shape": (eq.LShape, 64, 1, 900, 200, 1, 1e-2),
}
# Divided by 200 pi^2, the equation has at first a kernel 1e6 times smaller than the boundary's: damped away.
WEIGHTS: dict[str, dict[str, float]] = {"poisson2d_10pi": {"interior": 4e3}}  # for every method
ACTIVATIONS = {"poisson2d_10pi": "sine"}
METHODS: dict[str, tuple[float, float]] = {
    "adam": (1e-2, 2e-3),  # rates
    "soap": (1e-2, 3e-3),
    "lbfgs": (50, 200),  # history
    "adam_lbfgs": (1e-2, 2e-3),  # half of the time each, history 50
    "soap_power": (1e-2, 3e-3),  # S with power .5, every 100 steps
    "gauss_newton": (1e-8, 3e-11),  # mu
    "spring": (1e-8, 3e-11),  # mu, momentum .9: the paper's .99 is for quantum states
    "energy": (1e-10, 1e-12),  # mu: energy natural gradient as published
}


class EnergyNaturalGradient(GaussNewton):
    """The line search of Mueller and Zeinhofer 2023: the best of the steps 2^-k d, k = 0 ... 30."""

    def _search(self, closure: Callable[[], torch.Tensor], lin: Any, d: torch.Tensor, loss: torch.Tensor) -> bool:
        start = [p.clone() for p in self._params]
        best, step = loss, 0.0
        for k in range(31):
            self._move(start, 0.5**k * d)
            trial = 0.5 * closure().square().sum()
            if trial < best:  # never for nan
                best, step = trial, 0.5**k
        self._move(start, step * d)
        return step > 0


class Run:
    """One cell: a problem, a clock that stands still while errors are measured, and the curve."""

    def __init__(self, task: str, seed: int, seconds: float, part: int = 1, adaptive: bool = False) -> None:
        make, width, depth, inside, boundary, self.resample, _ = TASKS[task]
        torch.manual_seed(seed)
        equation = make()
        build = periodic if isinstance(equation, eq.AllenCahn) else mlp
        network = build(
            equation.domain.dim,
            equation.outputs,
            width=width,
            depth=depth,
            activation=ACTIVATIONS.get(task, "tanh"),
            parameterization="standard",
        ).double()
        self.draw = draw_adaptively if adaptive else Problem.draw
        counts = {"points": inside // part, "boundary_points": boundary // part}
        self.problem = Problem(equation, network, **counts, weights=WEIGHTS.get(task))
        self.x = evaluation_points(equation.domain, 71)
        self.exact = equation.exact(self.x)
        self.generator = torch.Generator().manual_seed(seed)
        self.seconds, self.curve, self._paused, self._next = seconds, [], 0.0, 0.0
        self._begun = time.process_time()

    @property
    def spent(self) -> float:
        """CPU seconds since the start, without measurements."""
        return time.process_time() - self._begun - self._paused

    def steps(self, until: float = 1.0) -> Iterator[int]:
        """Count steps until that part of the budget is spent; note the error whenever 5 % more is."""
        step = 0
        while self.spent < until * self.seconds:
            yield step
            step += 1
            if self.spent >= self._next:
                self.note()
                self._next = 1.05 * self.spent
        self.note()

    def note(self) -> None:
        """Add the present error to the curve."""
        paused, spent = time.process_time(), self.spent
        gap = predict(self.problem, self.x) - self.exact
        self.curve.append((spent, float(gap.norm() / self.exact.norm())))
        self._paused += time.process_time() - paused

    def residuals(self) -> Residuals:
        """At points that are drawn anew."""
        return self.problem.residuals(self.draw(self.problem, self.generator))


def first_order(run: Run, optimizer: Any, rate: float, until: float, S: SamplePreconditioner | None = None) -> None:
    residuals = run.residuals()
    for step in run.steps(until):
        if S is None or step % 100 == 0:
            residuals = run.residuals()
        if S is not None and step % 100 == 0:
            K = residuals.linearize().gram()
            S.update(Spectrum.from_kernel(K, rank=min(256, len(K))), dtype=K.dtype)
        decay(optimizer, rate, run.spent / (until * run.seconds))
        r = residuals()
        optimizer.zero_grad()
        (0.5 * (r if S is None else S(r)).square().sum()).backward()
        optimizer.step()


def decay(optimizer: torch.optim.Optimizer, rate: float, progress: float) -> None:
    """The cosine from the rate at 0 to 0 at 1."""
    for group in optimizer.param_groups:
        group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress))))


def lbfgs(run: Run, history: int) -> None:
    residuals = run.residuals()
    optimizer = torch.optim.LBFGS(
        run.problem.parameters(), history_size=history, max_iter=10, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = residuals.loss()
        loss.backward()
        return loss

    for _ in run.steps():
        optimizer.step(closure)


def gauss_newton(run: Run, optimizer: GaussNewton) -> None:
    residuals = run.residuals()
    for step in run.steps():
        if run.resample and step % run.resample == 0:
            residuals = run.residuals()
            decay(optimizer, 1.0, 4 * run.spent / run.seconds - 3)
        optimizer.step(residuals)


def run_cell(cell: dict[str, Any]) -> dict[str, Any]:
    task, method, value = cell["task"], cell["method"], cell["value"]
    second_order = method in ("gauss_newton", "spring", "energy")
    fresh = "lbfgs" not in method and (TASKS[task][5] > 0 or not second_order)
    part = cell["part" if fresh and method != "energy" else "fixed"]
    run = Run(task, cell["seed"], cell["seconds"], part, cell["adaptive"] and fresh)
    params = run.problem.parameters()
    soap = {"betas": (0.95, 0.95), "precondition_frequency": 10, "weight_decay": 0.0}
    if method in ("adam", "adam_lbfgs"):
        first_order(run, torch.optim.Adam(params, lr=value), value, 1.0 if method == "adam" else 0.5)
    if method in ("soap", "soap_power"):
        S = SamplePreconditioner(spectral_maps.power(0.5)) if method == "soap_power" else None
        first_order(run, SOAP(params, lr=value, **soap), value, 1.0, S)
    if method in ("lbfgs", "adam_lbfgs"):
        lbfgs(run, int(value) if method == "lbfgs" else 50)
    if second_order:
        make = EnergyNaturalGradient if method == "energy" else GaussNewton
        gauss_newton(run, make(params, mu=value, momentum=0.9 if method == "spring" else 0.0))
    return {**cell, "error": run.curve[-1][1], "curve": run.curve}


def seconds_to(level: float, result: dict[str, Any]) -> float:
    return min((seconds for seconds, error in result["curve"] if error <= level), default=math.inf)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", default=["poisson2d"], choices=TASKS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--trials", type=int, default=2, choices=(1, 2))
    parser.add_argument("--part", type=int, default=3)
    parser.add_argument("--fixed", type=int, default=1)
    parser.add_argument("--adaptive", action="store_true")
    parser.add_argument("--second", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for task in options.task:
        target = TASKS[task][-1]
        print(f"{task}: {options.seconds:g} CPU s, seeds {options.seeds}; median error of the better trial", flush=True)
        best: dict[str, list[dict[str, Any]]] = {method: [] for method in options.methods}
        for seed in options.seeds:
            for method in options.methods:
                cell = {"task": task, "method": method, "seed": seed, "seconds": options.seconds}
                cell |= {"part": options.part, "fixed": options.fixed, "adaptive": options.adaptive}
                values = METHODS[method][1:] if options.second else METHODS[method][: options.trials]
                trials = [run_cell({**cell, "value": value}) for value in values]
                better = min(trials, key=lambda trial: trial["error"] if math.isfinite(trial["error"]) else math.inf)
                best[method].append({**better, "reached": min(seconds_to(target, trial) for trial in trials)})
        for method, runs in best.items():
            final, reached = [run["error"] for run in runs], [run["reached"] for run in runs]
            chosen = ", ".join(f"{run['value']:g}" for run in runs)
            print(
                f"  {method:<13} {statistics.median(final):.1e} ({', '.join(f'{e:.1e}' for e in final)}), "
                f"to {target:g} after {statistics.median(reached):.2f} s, better trials {chosen}",
                flush=True,
            )


if __name__ == "__main__":
    main()
