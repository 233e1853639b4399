"""Learning-rate schedules over a known number of optimizer steps."""

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def cosine(optimizer: Optimizer, *, max_steps: int, warmup_steps: int = 0, hold: float = 0.0) -> LambdaLR:
    """Linear warm-up over `warmup_steps`, then half a cosine from the optimizer's rate to 0 at `max_steps`.

    The cosine begins after the part `hold` of the steps, below 1; until then the rate stays.
    """
    return LambdaLR(optimizer, partial(_cosine_factor, max_steps=max_steps, warmup_steps=warmup_steps, hold=hold))


def constant(optimizer: Optimizer, *, max_steps: int, warmup_steps: int = 0) -> LambdaLR:
    """Linear warm-up over `warmup_steps`, then the optimizer's rate (`max_steps` is not used)."""
    return LambdaLR(optimizer, partial(_warmup_factor, warmup_steps=warmup_steps))


def _warmup_factor(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / (warmup_steps + 1))


def _cosine_factor(step: int, max_steps: int, warmup_steps: int, hold: float) -> float:
    if step < warmup_steps:
        return _warmup_factor(step, warmup_steps)
    progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    return 0.5 * (1 + math.cos(math.pi * max(0.0, (progress - hold) / (1 - hold))))
