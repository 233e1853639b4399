"""Collocation points where the residual is large.

Legend: n points, d inputs.
"""

import torch

from spectrain.pde.domains import draw
from spectrain.pde.evaluation import residual_size
from spectrain.pde.problem import Problem
from spectrain.pde.residuals import Points

CANDIDATES = 5  # for each point that is taken


@torch.no_grad()
def draw_adaptively(problem: Problem, generator: torch.Generator) -> dict[str, Points]:
    """As `Problem.draw`, those inside by the residual: of 5 n random points n, with ``p(x) ~ |r(x)| / mean |r| + 1``.

    Half of the probability stays uniform, so that no part of the domain is forgotten. Wu et al. 2023 (arXiv 2207.10289,
    RAD with k = c = 1); as there, the loss is the mean over the points as they fall.
    """
    points = problem.draw(generator)
    n = len(points["interior"].x)
    x = draw(problem.equation.domain.interior, CANDIDATES * n, generator, f"{problem.equation.name}, interior")
    size = residual_size(problem, x)
    mean = size.mean()
    p = size / mean + 1 if bool(torch.isfinite(mean) & (mean > 0)) else torch.ones_like(size)
    chosen = x[torch.multinomial(p, min(n, len(x)), generator=generator)]
    return {**points, "interior": Points(chosen.to(problem.device, problem.dtype))}
