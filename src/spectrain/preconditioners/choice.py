"""Whether a modified spectrum pays on a network: by its spectrum where that is clear, by trial where it is not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from spectrain.errors import InputError
from spectrain.spectrum import Spectrum

# lambda_1 / lambda_64, measured: docs/safety.md. From the first on it pays, up to the second it cannot.
PAYS, USELESS = 8.0, 4.0
# The same of J D J^T, the kernel that an adaptive optimizer's steps follow, after five steps without S: up to this the
# optimizer flattens by itself (SOAP on Fourier features mostly 1.8 to 2.4; where S pays, 3.5 or more) a kernel that
# stays as steep as it was, to this share. One that training flattens (SIREN, FINER: .05 to .5) wants S at first.
FLATTENED, STEADY = 3.0, 0.7
MODE = 64
# A trial must be this much better than what is in use: a choice that goes to and fro costs more than either.
MARGIN = 1.1
NONE = "none"


def eigenvalue_ratio(spectrum: Spectrum) -> float:
    """lambda_1 / lambda_64; with k < 64 modes held, (lambda_1 / lambda_k)^(log 64 / log k), as a power law has it.

    Unresolved modes count as the noise floor: the ratio is then a lower bound.

    Raises:
        InputError: fewer than two modes are held.
    """
    k = min(MODE, spectrum.rank)
    if k < 2:
        raise InputError(
            f"preconditioner=auto reads the spectrum, and spectrum.rank={spectrum.rank} leaves nothing to."
        )
    smallest = max(float(spectrum.eigenvalues[k - 1]), spectrum.noise_floor)
    ratio = float(spectrum.eigenvalues[0]) / smallest if smallest > 0 else math.inf
    return float(ratio ** (math.log(MODE) / math.log(k)))


def predict(ratio: float) -> bool | None:
    """Whether S pays at this lambda_1 / lambda_64; None where only a trial can tell."""
    if ratio >= PAYS:
        return True
    return None if ratio > USELESS else False


@dataclass(frozen=True)
class Trial:
    """A few steps of training with one of the ways: decrease = log(loss before / loss after), in `seconds`.

    The seconds include the share of a refresh that falls on the steps.
    """

    name: str
    decrease: float
    seconds: float

    @property
    def rate(self) -> float:
        """Decrease per second; the worst there is if the loss was not finite."""
        return self.decrease / self.seconds if math.isfinite(self.decrease) else -math.inf


def choose(trials: Sequence[Trial], current: str) -> str:
    """The way with the best rate; `current`, the one in use, unless another is better by `MARGIN`."""
    best = max(trials, key=lambda trial: trial.rate)
    now = next(trial for trial in trials if trial.name == current)
    clear = best.rate > 0 and best.rate > MARGIN * now.rate
    return best.name if clear else current
