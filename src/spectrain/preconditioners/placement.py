"""Which of the training points become landmarks.

Shapes: n training points, m landmarks, d input dims, c candidates.
"""

import math

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from spectrain.kernels import infinite_width_ntk

# So many candidates at most are looked at, so that the choice among millions of points takes seconds.
FARTHEST_CANDIDATES = 2**16
LEVERAGE_CANDIDATES = 2**11


def random_points(n: int, count: int, generator: torch.Generator) -> Integer[Tensor, " m"]:
    """`count` of n points, each set equally likely."""
    return torch.randperm(n, generator=generator)[:count]


def farthest_points(x: Float[Tensor, "n d"], count: int, generator: torch.Generator) -> Integer[Tensor, " m"]:
    """Greedy k-centers: each next landmark is the point farthest from those there are; fewer if points repeat.

    The radius of the covering is at most twice the best one (Gonzalez 1985).
    """
    candidates = random_points(len(x), FARTHEST_CANDIDATES, generator).to(x.device)
    points = x[candidates]
    chosen = [0]
    distance = x.new_full((len(points),), math.inf)
    while len(chosen) < count:
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(1))
        farthest = int(distance.argmax())
        if float(distance[farthest]) == 0:
            break
        chosen.append(farthest)
    return candidates[chosen]


def leverage_points(x: Float[Tensor, "n d"], count: int, generator: torch.Generator) -> Integer[Tensor, " m"]:
    """A sample in proportion to ridge leverage scores ``l_i = (K (K + gamma I)^-1)_ii``, ``gamma = trace(K) / m``.

    K is the infinite-width ReLU NTK of the inputs, not that of the network: landmarks are chosen before training, and
    once. Scores by Alaoui and Mahoney 2015 (arXiv 1411.0306), on candidates drawn uniformly.
    """
    candidates = random_points(len(x), LEVERAGE_CANDIDATES, generator)
    points = x[candidates.to(x.device)].double().cpu()
    K = infinite_width_ntk(points, depth=2, bias_variance=0.1)
    gamma = float(K.diagonal().sum()) / count
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(K + gamma * torch.eye(len(K), dtype=K.dtype)))
    scores = (1 - gamma * inverse.diagonal()).clamp(min=torch.finfo(K.dtype).tiny)
    return candidates[torch.multinomial(scores, min(count, len(scores)), generator=generator)]
