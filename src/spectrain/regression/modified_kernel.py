"""The Modified Spectrum Kernel as a function of any two points.

Letters: n sample points, r resolved modes, n1 and n2 points asked for.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.regression.callables import Kernel, evaluate, evaluate_by_rows, length, rows
from spectrain.spectrum import Spectrum


class ModifiedSpectrumKernel:
    """k_g(x, z) = sum_i g(lambda_i) phi_i(x) phi_i(z), from a sample x of n points (Nystroem).

    phi_i(x) ~ k(x, X) v_i / (sqrt(n) lambda_i), lambda_i and v_i the eigenpairs of K/n, K = k(X, X), so

        tail="drop":  k_g(x, z) = sum_i g_i phi_i(x) phi_i(z)                            the r known modes alone
        tail="keep":  k_g(x, z) = k(x, z) + sum_i (g_i - lambda_i) phi_i(x) phi_i(z)     the rest stays as it is

    "keep" returns the kernel itself, exactly, for g = identity; it is positive semi-definite for every g > 0, as k
    minus its projection on the known modes is. Take "drop" when g should vanish beyond the known modes (heat,
    lambda^1.5). Both equal n sum_i g_i v_i v_i^T (+ the rest) on X, and both converge to k_g as n grows.

    kernel is any callable k(x1, x2): this library's, scikit-learn's, GPyTorch's; it is asked for block_size rows at a
    time, and a matrix exists once. rank=None takes all n modes (dense eigh: 9 n^3 flops, and its own copies); with a
    rank below n/6 the top ones alone, without a copy. `spectrum` holds the eigenpairs. Inputs given as NumPy arrays
    give a NumPy matrix. Raises InputError for a map, kernel or rank that cannot be used.

    Source: Geifman et al. 2024 (arXiv 2307.14531), section 4.
    """

    def __init__(
        self,
        kernel: Kernel,
        x: Any,
        g: Any,
        rank: int | None = None,
        *,
        tail: Literal["keep", "drop"] = "keep",
        block_size: int = 2048,
    ) -> None:
        if tail not in ("keep", "drop"):
            raise InputError(f"tail={tail!r} is not known; it must be 'keep' or 'drop'.")
        self.kernel, self.x, self.g, self.tail, self.block_size = kernel, x, g, tail, block_size
        self.spectrum = Spectrum.from_kernel(evaluate_by_rows(kernel, x, x, block_size), rank)
        r = self.spectrum.resolved
        if r == 0:
            raise InputError("The kernel has no mode above its noise floor on these points: it cannot be modified.")
        scale = self.spectrum.n * self.spectrum.eigenvalues[:r]
        ratio = self.spectrum.ratio(g)[:r]
        # (g - lambda) / (n lambda^2) and g / (n lambda^2), the factors of (k(x, X) v_i) (k(z, X) v_i).
        self._weights = (ratio - 1 if tail == "keep" else ratio) / scale

    def __call__(self, x1: Any, x2: Any = None) -> Any:
        """k_g(x1, x2) [n1, n2]; x2=None means x1. NumPy in, NumPy out."""
        z1 = self._like_sample(x1)
        z2 = z1 if x2 is None else self._like_sample(x2)
        F1 = self._projections(z1, x1)
        F2 = F1 if x2 is None else self._projections(z2, x2)
        weighted = F1 * self._weights
        if self.tail == "keep":
            K = evaluate_by_rows(self.kernel, z1, z2, self.block_size, F1.dtype, F1.device)
            K.addmm_(weighted, F2.T)
        else:
            K = weighted @ F2.T
        return K if isinstance(x1, (Tensor, tuple, dict)) else K.cpu().numpy()

    def eigenfunctions(self, x: Any) -> Float[Tensor, "n1 r"]:
        """phi_i(x), Nystroem-extended: mean square one over the sample. float64."""
        n, r = self.spectrum.n, self.spectrum.resolved
        scale: Tensor = n**0.5 * self.spectrum.eigenvalues[:r]
        return self._projections(self._like_sample(x), x) / scale

    def _projections(self, x: Any, given: Any) -> Float[Tensor, "n1 r"]:
        """k(x, X) V by blocks of rows; on the sample itself it is n V diag(lambda)."""
        V = self.spectrum.eigenvectors[:, : self.spectrum.resolved]
        if given is self.x:
            return V * (self.spectrum.n * self.spectrum.eigenvalues[: V.shape[1]])
        starts = range(0, length(x), self.block_size)
        blocks = (evaluate(self.kernel, rows(x, a, a + self.block_size), self.x) for a in starts)
        return torch.cat([block.to(V) @ V for block in blocks])

    def _like_sample(self, x: Any) -> Any:
        """The kernel sees one kind of input: arrays become tensors when the sample is a tensor, and the other way."""
        if isinstance(self.x, Tensor) and not isinstance(x, Tensor):
            return torch.as_tensor(x).to(self.x)
        if isinstance(x, Tensor) and not isinstance(self.x, (Tensor, tuple, dict)):
            return x.detach().cpu().numpy()
        return x
