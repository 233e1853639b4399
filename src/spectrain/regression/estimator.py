"""Kernel regression as a scikit-learn estimator.

Letters: n points, d inputs, C outputs. The ridge is in the units of the eigenvalues of K/n.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import lapack
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from spectrain.errors import InputError
from spectrain.regression.callables import Kernel, evaluate, evaluate_by_rows, rbf
from spectrain.regression.ridge_path import RidgePath, ridge_path
from spectrain.spectrum import Spectrum

_ROWS = 2048


class KernelRegression(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """f(x) = k(x, X) (K + n ridge I)^-1 y, in float64: least squares in the kernel's space (Saunders et al. 1998).

    kernel: any callable k(x1, x2) on tensors or arrays, a `ModifiedSpectrumKernel`, or None for exp(-|x - z|^2 / d).
    ridge: a number >= 0, in the units of the eigenvalues of K/n (scikit-learn's KernelRidge has alpha = n ridge); or
    "loo" or "gcv", which choose it on a path of ridges from one eigendecomposition (`ridges`, or a default path).

    A fixed ridge is solved by Cholesky, in place: memory 8 n^2 bytes plus a block of 2048 rows (3.2 GB at n = 20,000).
    If that fails (ridge = 0 and a singular kernel), the least-norm solution on the resolved modes is taken, by eigh.

    After fit: dual_coef_ [n] or [n, C], X_fit_, ridge_, and path_ (`RidgePath`) when the ridge was chosen. Tensors in,
    tensors out; arrays in, arrays out. Raises InputError for a bad ridge or kernel, ValueError for bad data.
    """

    # scikit-learn's contract: the constructor stores whatever it gets, fit checks it. Hence no types here.
    def __init__(self, kernel: Any = None, ridge: Any = 0.0, ridges: Any = None) -> None:
        self.kernel = kernel
        self.ridge = ridge
        self.ridges = ridges

    def fit(self, X: Any, y: Any) -> "KernelRegression":
        """X [n, d], y [n] or [n, C]."""
        arrays = validate_data(
            self,
            _to_numpy(X),
            _to_numpy(y),
            multi_output=True,
            y_numeric=True,
            dtype=[np.float64, np.float32],
            ensure_min_samples=2,
        )
        self.X_fit_ = X.detach() if isinstance(X, Tensor) else torch.tensor(arrays[0])
        targets = torch.from_numpy(np.asarray(arrays[1], dtype=np.float64))
        K = self._gram()
        dual = self._fit_path(K, targets) if isinstance(self.ridge, str) else self._fit_ridge(K, targets)
        self.dual_coef_ = dual.numpy()
        return self

    def predict(self, X: Any) -> Any:
        """f(X) [n] or [n, C], by blocks of rows."""
        check_is_fitted(self)
        array = validate_data(self, _to_numpy(X), reset=False, dtype=[np.float64, np.float32])
        x = X.detach() if isinstance(X, Tensor) else torch.from_numpy(array).to(self.X_fit_)
        dual = torch.from_numpy(self.dual_coef_)
        blocks = (evaluate(self._kernel(), part, self.X_fit_) for part in torch.split(x, _ROWS))
        f = torch.cat([block.cpu().double() @ dual for block in blocks])
        return f.to(X) if isinstance(X, Tensor) else f.numpy()

    def _kernel(self) -> Kernel:
        kernel: Kernel = rbf if self.kernel is None else self.kernel
        return kernel

    def _gram(self) -> Float[Tensor, "n n"]:
        return evaluate_by_rows(self._kernel(), self.X_fit_, self.X_fit_, _ROWS, torch.float64, torch.device("cpu"))

    def _fit_path(self, K: Tensor, y: Tensor) -> Tensor:
        if self.ridge not in ("loo", "gcv"):
            raise InputError(f"ridge={self.ridge!r} is not known; give a number >= 0, 'loo' or 'gcv'.")
        spectrum = _spectrum(K)
        self.path_: RidgePath = ridge_path(spectrum, y, self.ridges)
        self.ridge_ = self.path_.best(self.ridge)
        return _dual_from_spectrum(spectrum, y, self.ridge_)

    def _fit_ridge(self, K: Tensor, y: Tensor) -> Tensor:
        self.ridge_ = float(self.ridge)
        if not (np.isfinite(self.ridge_) and self.ridge_ >= 0):
            raise InputError(f"ridge={self.ridge} is not a number >= 0; give one, or 'loo' or 'gcv'.")
        n = len(K)
        diagonal = K.diagonal().clone()
        K.diagonal().add_(n * self.ridge_)
        # The transpose of a C-ordered array is Fortran-ordered: LAPACK then factorises it without a copy, and reads
        # only one triangle, so that the other still holds K.
        factor, info = lapack.dpotrf(K.numpy().T, lower=True, overwrite_a=True, clean=False)
        pivots = torch.from_numpy(factor.diagonal().copy())
        if info == 0 and float(pivots.min() / pivots.max()) ** 2 > n * torch.finfo(torch.float64).eps:
            return torch.from_numpy(np.ascontiguousarray(lapack.dpotrs(factor, y.numpy(), lower=True)[0])).reshape(
                y.shape
            )
        K = K.tril(-1)
        K = K + K.T + torch.diag(diagonal)
        return _dual_from_spectrum(_spectrum(K), y, self.ridge_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _spectrum(K: Tensor) -> Spectrum:
    # An estimator must fit a single point too, which is no spectrum.
    if len(K) == 1:
        one = torch.ones(1, 1, dtype=torch.float64)
        return Spectrum(K[0], one, torch.zeros(1, dtype=torch.float64), 0.0, float(K[0, 0]))
    return Spectrum.from_kernel(K)


def _dual_from_spectrum(spectrum: Spectrum, y: Tensor, ridge: float) -> Tensor:
    """(K + n ridge I)^-1 y on the resolved modes; with ridge = 0 the pseudo-inverse."""
    r = spectrum.resolved if ridge == 0 else spectrum.rank
    V = spectrum.eigenvectors[:, :r]
    scale = spectrum.n * (spectrum.eigenvalues[:r] + ridge)
    return (V @ ((V.T @ y.reshape(len(y), -1)) / scale[:, None])).reshape(y.shape)


def _to_numpy(x: Any) -> Any:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else x
