"""Collocation points of an equation as a data module."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from spectrain.errors import InputError
from spectrain.pde import Equation, Problem
from spectrain.pde.evaluation import evaluation_points


class PDEDataModule(LightningDataModule):
    """Points for an equation: drawn anew every `resample_every_n_steps` steps, or once (None).

    Args:
        equation: the equation; a run names it by `data.equation._target_`.
        points: collocation points inside the domain.
        boundary_points: on each other condition that has a sampler.
        resample_every_n_steps: None keeps the first points; a network then fits them, and not the equation between.
        adaptive: more points inside where the residual is large (`draw_adaptively`); drawn anew at every step.
        weights: of conditions by name, in place of the equation's own; or "trace" (`weights_by_trace`).
        hard: the network fulfils one of the conditions by itself, where the equation says how (`Equation.hard`).
        resolution: points along each axis of the grid on which errors are measured and figures drawn.
        seed: of the points.

    The points of step t are a pure function of (seed, t), and adaptive ones of the network's weights: a resumed run
    goes on with those that were next.
    """

    def __init__(
        self,
        equation: Equation,
        *,
        points: int = 900,
        boundary_points: int = 120,
        resample_every_n_steps: int | None = 1,
        adaptive: bool = False,
        weights: Mapping[str, float] | Literal["trace"] | None = None,
        hard: bool = False,
        resolution: int = 101,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(equation, Equation):
            raise InputError(f"data.equation is a {type(equation).__name__}; it must be a spectrain.pde.Equation.")
        if weights is not None and weights != "trace" and not isinstance(weights, Mapping):
            raise InputError(
                f"data.weights={weights!r} cannot be used; give weights by name, such as {{boundary: 10}}, or trace."
            )
        self.equation, self.points, self.boundary_points = equation, points, boundary_points
        if adaptive and resample_every_n_steps != 1:
            raise InputError(
                f"data.adaptive=true draws points by the residual at each step; with data.resample_every_n_steps="
                f"{resample_every_n_steps} there is none to draw by. Set it to 1."
            )
        self.adaptive, self.balanced, self.hard = adaptive, weights == "trace", hard
        self.resample_every_n_steps = resample_every_n_steps
        self.weights = {} if weights is None or isinstance(weights, str) else dict(weights)
        self.resolution, self.seed = resolution, seed
        self.in_features, self.out_features = equation.domain.dim, equation.outputs
        self.target_mean = torch.zeros(self.out_features)
        self.evaluation_points = evaluation_points(equation.domain, resolution)

    def problem(self, network: torch.nn.Module) -> Problem:
        """The equation with a network to solve it."""
        return Problem(
            self.equation,
            network,
            points=self.points,
            boundary_points=self.boundary_points,
            weights=self.weights,
            hard=self.hard,
        )

    def generator(self, step: int, *, fresh: bool = False) -> torch.Generator:
        """Of the points of a step; `fresh` gives others, on which nothing is trained."""
        turn = 0 if self.resample_every_n_steps is None else step // self.resample_every_n_steps
        seed = (2 * turn + 1) * 1_000_003 + 2 * self.seed if not fresh else 2 * (step * 1_000_003 + self.seed) + 1
        return torch.Generator().manual_seed(seed)

    def train_dataloader(self) -> "Steps":
        """Batches without end: the number of each optimizer step, from which the module draws its points."""
        return Steps(lambda: 0 if self.trainer is None else self.trainer.global_step)

    def val_dataloader(self) -> "Once":
        """One batch: where errors are measured."""
        return Once(self.evaluation_points)


class Steps:
    """0, 1, 2, ... from where the run is."""

    def __init__(self, start: Callable[[], int]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[Any]:
        step = self._start()
        while True:
            yield torch.tensor(step)
            step += 1


class Once:
    """One batch. (Lightning takes a list for several loaders, and a tensor in it for a loader of rows.)"""

    def __init__(self, batch: Tensor) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Tensor]:
        yield self.batch
