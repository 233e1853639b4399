"""The kernel as an operator against the kernel as a matrix."""

from itertools import count

import numpy as np
import pytest
import torch

from spectrain.errors import InputError
from spectrain.kernels import NTKOperator, empirical_ntk, progress

from .oracle import relative_error
from .zoo import build, normal

NAMES = [
    "mlp",
    "tokens",
    "conv2d",
    "tied embedding",
    "embedding",
    "shared conv",
    "vision transformer",
    "weight norm",
    "weight norm, conv2d groups",
    "weight norm, shared",
    "gru",
]


def matrix(K: torch.Tensor) -> torch.Tensor:
    return K if K.ndim == 2 else K.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("outputs", ["trace", "sum", "full"])
@pytest.mark.parametrize("budget", [None, 40_000])
def test_products_equal_those_with_the_matrix(name: str, outputs: str, budget: int | None) -> None:
    module, x, _ = build(name)
    _, z, _ = build(name, n=7, seed=1)
    large = ("tied embedding", "vision transformer", "shared conv", "conv2d", "gru", "weight norm, conv2d groups")
    if budget is not None and name in large:
        budget *= 4
    K = matrix(empirical_ntk(module, x, z, outputs=outputs))
    operator = NTKOperator(module, x, z, outputs=outputs, memory_budget=budget)
    assert operator.shape == tuple(K.shape)
    v = normal(K.shape[1], 3)
    assert relative_error(operator @ v, K @ v) < 1e-10
    assert relative_error(operator.matvec(v[:, 0]), K @ v[:, 0]) < 1e-10
    u = normal(K.shape[0])
    assert relative_error(operator.T @ u, K.T @ u) < 1e-10


def test_the_jacobian_method() -> None:
    module, x, _ = build("conv2d")
    K = matrix(empirical_ntk(module, x, outputs="full"))
    operator = NTKOperator(module, x, outputs="full", method="jacobian")
    assert relative_error(operator.matmat(normal(K.shape[0], 2)), K @ normal(K.shape[0], 2)) < 1e-10


def test_the_diagonal_and_the_bridge_to_scipy() -> None:
    linalg = pytest.importorskip("scipy.sparse.linalg")
    module, x, _ = build("tokens", n=12)
    for outputs in ("trace", "full"):
        K = matrix(empirical_ntk(module, x, outputs=outputs))
        operator = NTKOperator(module, x, outputs=outputs)
        assert relative_error(operator.diagonal(), K.diagonal()) < 1e-12
        top = linalg.eigsh(operator.to_scipy(), k=3, return_eigenvectors=False)
        np.testing.assert_allclose(np.sort(top), torch.linalg.eigvalsh(K)[-3:].numpy(), rtol=1e-9)


def test_it_is_the_operator_of_the_parameters_it_was_made_with() -> None:
    module, x, _ = build("mlp")
    K, operator = empirical_ntk(module, x), NTKOperator(module, x, memory_budget=20_000)
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    assert relative_error(operator @ normal(5), K @ normal(5)) < 1e-12


@pytest.mark.parametrize("method", ["auto", "jacobian"])
@pytest.mark.parametrize("outputs", ["trace", "sum", "full"])
def test_a_long_product_says_how_far_it_is(
    method: str, outputs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = count(0, 31)  # a file gets a line every half minute
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    module, x, _ = build("tokens")
    operators = [NTKOperator(module, x, outputs=outputs, method=method, progress=show) for show in (True, False)]
    v = normal(operators[0].shape[1], 2)
    assert torch.equal(operators[0] @ v, operators[1] @ v)
    lines = capsys.readouterr().err.splitlines()
    shares = [int(line.split()[2]) for line in lines]
    assert all(line.startswith("kernel product: ") for line in lines)
    assert shares == sorted(set(shares))
    assert shares[-1] == 100


def test_wrong_shapes_are_refused() -> None:
    module, x, _ = build("mlp")
    with pytest.raises(InputError, match="shape"):
        NTKOperator(module, x) @ normal(6)
