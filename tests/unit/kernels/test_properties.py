"""Properties of the kernel: symmetric, positive, and the same however the work is cut."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spectrain.errors import InputError
from spectrain.kernels import empirical_ntk
from spectrain.kernels.memory import budget_bytes

from .oracle import relative_error
from .zoo import build, mlp, normal

MIXED = [
    "mlp",
    "tokens",
    "conv2d",
    "shared layer",
    "embedding",
    "vision transformer",
    "lstm",
    "functional weight",
    "weight norm",
]
names, sizes, seeds = st.sampled_from(MIXED), st.integers(1, 7), st.integers(0, 5)
outputs = st.sampled_from(["trace", "sum", "full"])


def smallest_budget(module: nn.Module, *points: object, **kwargs: object) -> int:
    """The first power of two that the network fits in, so that there are as many blocks as can be."""
    for log2 in range(10, 30):
        try:
            empirical_ntk(module, *(x[:2] for x in points), memory_budget=2**log2, **kwargs)
        except InputError:
            continue
        return int(2**log2)
    raise AssertionError


@settings(max_examples=10)
@given(names, sizes, sizes, seeds, outputs, st.integers(0, 3))
def test_blocks_of_any_size_give_the_same(name: str, n: int, m: int, seed: int, kind: str, log2: int) -> None:
    module, x, _ = build(name, n=n, seed=seed)
    _, z, _ = build(name, n=m, seed=seed + 1)
    budget = 2**log2 * smallest_budget(module, x, z, outputs=kind)
    whole = empirical_ntk(module, x, z, outputs=kind)
    assert relative_error(empirical_ntk(module, x, z, outputs=kind, memory_budget=budget), whole) < 1e-12
    square = empirical_ntk(module, x, outputs=kind)
    assert relative_error(empirical_ntk(module, x, outputs=kind, memory_budget=budget), square) < 1e-12
    assert relative_error(empirical_ntk(module, x, x, outputs=kind), square) < 1e-12


@settings(max_examples=15)
@given(names, st.integers(2, 9), seeds)
def test_symmetric_positive_and_equivariant(name: str, n: int, seed: int) -> None:
    module, x, _ = build(name, n=n, seed=seed)
    K = empirical_ntk(module, x)
    assert torch.equal(K, K.T)
    assert torch.linalg.eigvalsh(K)[0] > -1e-12 * K.trace()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert relative_error(empirical_ntk(module, x[order]), K[order][:, order]) < 1e-12
    full = empirical_ntk(module, x, outputs="full")
    matrix = full.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    assert torch.equal(matrix, matrix.T)
    assert relative_error(full.diagonal(dim1=2, dim2=3).mean(2), K) < 1e-12


@pytest.mark.parametrize(("name", "n"), [("mlp", 300), ("tokens", 150), ("conv2d", 140), ("bare parameters", 140)])
@pytest.mark.parametrize("kind", ["trace", "full"])
def test_kernels_larger_than_a_tile(name: str, n: int, kind: str) -> None:
    """Symmetric tiles, mirrored, against the cross-kernel of the same points, which has no symmetry to use."""
    module, x, _ = build(name, n=n)
    K = empirical_ntk(module, x, outputs=kind)
    assert relative_error(K, empirical_ntk(module, x, x.clone(), outputs=kind)) < 1e-12
    assert torch.equal(K, K.transpose(0, 1) if kind == "trace" else K.permute(1, 0, 3, 2))


@settings(max_examples=10)
@given(st.floats(0.1, 10.0), seeds)
def test_scaling_the_outputs_scales_the_kernel(scale: float, seed: int) -> None:
    class Scaled(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return scale * self.module(x)

    module, x, _ = build("mlp", seed=seed)
    assert relative_error(empirical_ntk(Scaled(module), x), scale**2 * empirical_ntk(module, x)) < 1e-12


@pytest.mark.parametrize(
    "name", [*MIXED, "prelu", "tied embedding", "transposed", "transformer", "weight norm, old conv2d"]
)
@pytest.mark.parametrize("kind", ["trace", "full"])
def test_the_parameters_shares_add_up(name: str, kind: str) -> None:
    module, x, _ = build(name)
    shares = empirical_ntk(module, x, outputs=kind, per_parameter=True)
    assert shares.keys() == {n for n, p in module.named_parameters() if p.requires_grad}
    assert relative_error(sum(shares.values()), empirical_ntk(module, x, outputs=kind)) < 1e-12
    one = next(iter(shares))
    assert relative_error(empirical_ntk(module, x, outputs=kind, params=lambda n: n == one), shares[one]) < 1e-12


def test_the_result_goes_where_one_says(tmp_path: object) -> None:
    module, x = mlp(nn.ReLU()).double(), normal(9, 4)
    K, full = empirical_ntk(module, x), empirical_ntk(module, x, outputs="full")
    file = np.memmap(f"{tmp_path}/kernel.bin", dtype=np.float64, mode="w+", shape=(9, 9))
    out = torch.from_numpy(file)
    assert empirical_ntk(module, x, out=out, memory_budget=30_000).data_ptr() == out.data_ptr()
    np.testing.assert_allclose(
        np.memmap(f"{tmp_path}/kernel.bin", np.float64, "r", shape=(9, 9)), K.numpy(), rtol=1e-12
    )
    single = empirical_ntk(module, x, out=torch.empty(9, 9, dtype=torch.float32))
    assert single.dtype == torch.float32
    assert relative_error(single, K) < 1e-6
    assert relative_error(empirical_ntk(module, x, outputs="full", out=torch.empty(9, 9, 3, 3).double()), full) < 1e-12


def test_budgets_are_read_as_people_write_them() -> None:
    cpu = torch.device("cpu")
    for text, value in (("2GiB", 2 * 2**30), ("500 MB", 5e8), ("1.5k", 1500), ("7", 7), (12, 12), ("1tib", 2**40)):
        assert budget_bytes(text, cpu) == value
    assert budget_bytes(None, cpu) > 2**20


@pytest.mark.parametrize(("m", "passes"), [(None, 7), (20, 13)])
def test_blocks_share_the_factors_at_hand(m: int | None, passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four blocks of rows: the next row of blocks begins with the factors that the last one ended with."""
    from spectrain.kernels import blocks, run

    module, x, z = mlp(nn.ReLU()).double(), normal(20, 4), None if m is None else normal(m, 4, seed=1)
    want, seen, real = empirical_ntk(module, x, z), [], blocks.capture
    monkeypatch.setattr(run, "split", lambda *args: blocks.Split(5, 5 if m is None else 7, 2**20, 2**20))
    monkeypatch.setattr(blocks, "capture", lambda *args: (seen.append(1), real(*args))[1])
    assert relative_error(empirical_ntk(module, x, z), want) < 1e-12
    assert len(seen) == passes


@pytest.mark.parametrize("where", ["pass", "product"])
def test_out_of_memory_halves_the_block_and_goes_on(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from spectrain.kernels import blocks, sinks

    module, x = mlp(nn.ReLU()).double(), normal(20, 4)
    want = empirical_ntk(module, x)
    place, name = (blocks, "capture") if where == "pass" else (sinks, "add_gram")
    real, calls = getattr(place, name), []

    def tight(*args: object) -> object:
        calls.append(len(args[1]) if where == "pass" else args[1].workspace)
        if (calls[-1] > 6) if where == "pass" else len(calls) in (2, 4):
            raise torch.OutOfMemoryError
        return real(*args)

    monkeypatch.setattr(place, name, tight)
    assert relative_error(empirical_ntk(module, x), want) < 1e-12
    assert calls[0] > calls[-1]
