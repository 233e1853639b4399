"""The theory's own prediction of the test error of kernel ridge regression.

Letters: N modes, C outputs, n training points. Eigenvalues are of the kernel's integral operator (or of K/n).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError


@dataclass(frozen=True)
class Eigenlearning:
    """test_error and train_error (mean squares, summed over outputs, with the noise), learnability [N] of each mode."""

    test_error: float
    train_error: float
    learnability: Float[Tensor, "N"]
    kappa: float


def eigenlearning(
    eigenvalues: Float[Tensor, "N"],
    energy: Float[Tensor, "N"],
    n: int,
    ridge: float = 0.0,
    noise: float = 0.0,
) -> Eigenlearning:
    """Expected errors over random samples of n points, for a target with `energy` (mean square) in each mode.

        sum_i L_i + n ridge / kappa = n,   L_i = lambda_i / (lambda_i + kappa)      (this defines kappa)
        E_test = n / (n - sum_i L_i^2) * (sum_i (1 - L_i)^2 energy_i + noise^2)
        E_train = (ridge / kappa)^2 E_test

    ridge is in the units of the eigenvalues of K/n, noise is the standard deviation in y (all outputs together).
    Modified kernels: pass g(lambda). Raises InputError when there are no more than n modes and no ridge (kappa = 0).

    Source: Simon et al. 2023 (arXiv 2110.03922); Bordelon, Canatar and Pehlevan 2020 (arXiv 2002.02561).
    """
    lam, energy = eigenvalues.double(), energy.double()
    if lam.shape != energy.shape or lam.ndim != 1 or n < 1 or ridge < 0 or noise < 0:
        raise InputError(
            f"eigenlearning needs one energy per eigenvalue (given {tuple(energy.shape)} for {tuple(lam.shape)}), "
            "n >= 1, ridge >= 0 and noise >= 0."
        )
    if ridge == 0 and int((lam > 0).sum()) <= n:
        raise InputError(f"{int((lam > 0).sum())} modes cannot predict the error at n={n} without a ridge; add modes.")
    kappa = _kappa(lam, n, ridge)
    learnability = lam / (lam + kappa)
    overfitting = n / (n - float(learnability.square().sum()))
    test = overfitting * (float(((1 - learnability).square() * energy).sum()) + noise**2)
    return Eigenlearning(test, (ridge / kappa) ** 2 * test, learnability, kappa)


def _kappa(lam: Tensor, n: int, ridge: float) -> float:
    """Bisection in log kappa: the left side falls from above n to below n."""
    low = -700.0
    high = float(torch.log(lam.sum() / n + ridge)) + 1
    for _ in range(200):
        middle = (low + high) / 2
        kappa = torch.tensor(middle, dtype=torch.float64).exp()
        excess = float((lam / (lam + kappa)).sum() + n * ridge / kappa - n)
        low, high = (middle, high) if excess > 0 else (low, middle)
    return float(torch.tensor((low + high) / 2, dtype=torch.float64).exp())
