"""When the spectrum is computed anew: the times that come into question, and how far the kernel has moved.

Shapes: m landmarks, k modes.
"""

import math
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from spectrain.errors import InputError, SpectrainWarning
from spectrain.kernels import NTKOperator
from spectrain.preconditioners.modes import evaluating
from spectrain.preconditioners.ranks import is_of_a_collective
from spectrain.spectrum import Spectrum

REFRESHES = ("every", "drift", "budget")
T = TypeVar("T")
FIRST = 5  # steps to the first refresh after the one at step 0
# A refresh is due when the kernel's change is above this: see docs/safety.md for what other values cost.
MOST_CHANGE = 1.0


def attempt(compute: Callable[[], T], device: torch.device, failed: str, goes_on: Callable[[], str | None]) -> T | None:
    """`compute` without autocast; if that fails (not finite, no convergence, no memory), None and a warning.

    `failed` says what did, `goes_on` with what training goes on.

    Raises:
        InputError: it failed, and there is nothing to go on with (`goes_on` is None).
    """
    try:
        with torch.autocast(device.type, enabled=False):
            return compute()
    except (RuntimeError, MemoryError, InputError) as error:  # LinAlgError and out-of-memory are RuntimeErrors
        if is_of_a_collective(error):
            raise
        how = goes_on()
        if how is None:
            raise InputError(f"{failed}, and there is none to go on with: {error}") from error
        warnings.warn(f"{failed}, {how}: {error}", SpectrainWarning, stacklevel=3)
        return None


def last_due(step: int, period: int) -> int:
    """The last of 0, 5, 10, 20, 40, ... below `period`, and of its multiples, that is not after `step`.

    The kernel moves most at the start, and an old S does harm while it moves.
    """
    if step >= period:
        return step - step % period
    due, time = 0, FIRST
    while time <= step:
        due, time = time, 2 * time
    return due


def kernel_change(network: nn.Module, points: Tensor, spectrum: Spectrum, seed: int = 0) -> float:
    """How far the kernel of `network` on the landmarks has moved from `spectrum`, relative to the kernel itself.

    One product with the present kernel K'/m, for one random combination of the resolved modes:

        w = V Lambda^-1/2 z with random signs z,  |M^-1/2 (K'/m - a K/m) w| / |a z|,

    M = K/m on the modes held and lambda_k I beyond them: an error counts by the mode that it falls on, which is what S
    multiplies it by. The best factor a takes out growth of the kernel as a whole, which S does not see. 0 where nothing
    has moved; about 1 where a direction that S leaves alone has become as fast as the modes held; inf where the
    spectrum says nothing about the present kernel.
    """
    r = spectrum.resolved
    if r == 0:
        return math.inf
    V, root = spectrum.eigenvectors[:, :r], spectrum.eigenvalues[:r].sqrt()
    signs = torch.randint(0, 2, (r,), generator=torch.Generator().manual_seed(seed)).to(V) * 2 - 1
    with evaluating(network):
        product = (NTKOperator(network, points, outputs="trace") @ (V @ (signs / root))).to(V) / spectrum.n
    inside = V.T @ product
    outside = float((product - V @ inside).norm() / root[-1])
    inside = inside / root
    a = float(signs @ inside) / r
    if not a > 0:
        return math.inf
    return math.hypot(float((inside - a * signs).norm()), outside) / (a * math.sqrt(r))
