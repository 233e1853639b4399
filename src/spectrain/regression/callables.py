"""Any callable kernel, as a function from tensors to a matrix.

Letters: n points, d inputs. torch kernels, NumPy kernels (scikit-learn's) and lazy ones (GPyTorch's, with `to_dense`).
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError

# Any callable k(x1, x2) that returns something like a matrix.
Kernel = Callable[..., Any]


def rbf(x1: Float[Tensor, "n1 d"], x2: Float[Tensor, "n2 d"]) -> Float[Tensor, "n1 n2"]:
    """exp(-|x - z|^2 / d): the default kernel, as scikit-learn's rbf_kernel with its default gamma."""
    squares = x1.square().sum(1)[:, None] + x2.square().sum(1) - 2 * x1 @ x2.T
    return torch.exp(-squares.clamp(min=0) / x1.shape[1])


def evaluate(kernel: Kernel, x1: Any, x2: Any) -> Float[Tensor, "n1 n2"]:
    """kernel(x1, x2) as a detached tensor [n1, n2]. Raises InputError when it is no such matrix."""
    with torch.no_grad():
        K = kernel(x1, x2)
    K = K.to_dense() if hasattr(K, "to_dense") and not isinstance(K, Tensor) else K
    K = torch.as_tensor(K).detach()
    expected = (length(x1), length(x2))
    if K.shape != expected:
        raise InputError(
            f"The kernel returned the shape {tuple(K.shape)} for {expected[0]} and {expected[1]} points; it must "
            "return a matrix of that size. For a network with several outputs take empirical_ntk's outputs='trace'."
        )
    return K if K.is_floating_point() else K.double()


def evaluate_by_rows(
    kernel: Kernel,
    x1: Any,
    x2: Any,
    block_size: int,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> Float[Tensor, "n1 n2"]:
    """kernel(x1, x2) from blocks of rows: the matrix exists once, beside what the kernel needs for one block.

    dtype, device: of the matrix; None: the kernel's own.
    """
    n = length(x1)
    first = evaluate(kernel, rows(x1, 0, block_size), x2)
    K = first.new_empty(n, length(x2), dtype=dtype, device=device)
    K[:block_size] = first
    del first  # or there would be two blocks at once
    for start in range(block_size, n, block_size):
        K[start : start + block_size] = evaluate(kernel, rows(x1, start, start + block_size), x2)
    return K


def length(x: Any) -> int:
    """Number of points in a tensor, an array, or a tuple or dict of them."""
    if isinstance(x, dict):
        x = next(iter(x.values()))
    return len(x[0]) if isinstance(x, tuple) else len(x)


def rows(x: Any, start: int, stop: int) -> Any:
    """Points start .. stop-1."""
    if isinstance(x, dict):
        return {name: value[start:stop] for name, value in x.items()}
    return tuple(part[start:stop] for part in x) if isinstance(x, tuple) else x[start:stop]
