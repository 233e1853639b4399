"""The trace kernel of layers over many positions, one output's factors after another's."""

import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from spectrain.errors import InputError
from spectrain.kernels import blocks, empirical_ntk
from spectrain.kernels.factors import Outer
from spectrain.kernels.gram import Pair, add_gram, mirror
from spectrain.kernels.network import Network, undisturbed
from spectrain.kernels.parts import in_parts, one_by_one
from spectrain.kernels.planning import look

from .oracle import kernel, relative_error
from .zoo import build, normal

TOKENS = ["tokens", "transformer", "self attention"]


class Pooled(nn.Module):
    """Two layers over the tokens, one over what `pool` leaves of them."""

    def __init__(self, pool: object, lowest: float = -torch.inf, outputs: int = 3) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, outputs)
        self.pool, self.lowest = pool, lowest

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.pool(self.second(self.first(x).tanh()))
        return self.last(h + torch.where(x.amin((1, 2)) < self.lowest, torch.nan, 0.0)[:, None])


@pytest.mark.parametrize("name", TOKENS)
def test_every_part_is_one_output_and_gone_before_the_next(name: str) -> None:
    module, x, _ = build(name)
    network = Network(module)
    with undisturbed(network):
        seen = look(network, x, "trace", frozenset(), strict=True)
        single = one_by_one(seen, len(x), torch.inf)
        parts = in_parts(network, x, seen.plan, single)
        assert single
        gradients: list[weakref.ref] = []
        for _ in range(seen.C):
            part = next(parts)
            assert part.keys() == single
            assert all(factor.C == 1 for factor in part.values())
            assert all(gone() is None for gone in gradients)
            gradients = [weakref.ref(factor) for factor in part.values()]
        rest = next(parts)
        assert not part
        assert single.isdisjoint(rest)
        assert {n for names in [*single, *rest] for n in names} == set(network.params)
        assert not list(parts)


def test_layers_whose_outputs_share_work_stay_together() -> None:
    for name in ("mlp", "conv2d", "shared layer", "embedding"):
        module, x, _ = build(name)
        network = Network(module)
        with undisturbed(network):
            seen = look(network, x, "trace", frozenset(), strict=True)
            assert not {names for names in one_by_one(seen, len(x), torch.inf) if "0.weight" in names}


@pytest.mark.parametrize("fails", ["pass", "product"])
def test_out_of_memory_begins_again_without_parts(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, x, _ = build("transformer")
    want, calls = empirical_ntk(module, x), []

    def tight(*args: object) -> Iterator[object]:
        for part in in_parts(*args):
            calls.append(len(part))
            if len(calls) >= 2:
                raise torch.OutOfMemoryError
            yield part

    if fails == "pass":
        monkeypatch.setattr(blocks, "in_parts", tight)
    else:
        from spectrain.kernels import sinks

        def add(*args: object) -> None:
            calls.append(1)
            if len(calls) == 5:
                raise torch.OutOfMemoryError
            add_gram(*args)

        monkeypatch.setattr(sinks, "add_gram", add)
    assert relative_error(empirical_ntk(module, x), want) < 1e-12
    assert len(calls) >= 2


def test_points_whose_factors_do_not_fit_are_one_block_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = Pooled(lambda h: h.tanh().sum(1), outputs=40).double(), normal(20, 3, 4)
    want, network = empirical_ntk(module, x), Network(module)
    with undisturbed(network):
        budget = 2 * len(x) * look(network, x, "trace", frozenset(), strict=True).costs.factors - 1
    monkeypatch.setattr(blocks, "capture", None)
    assert relative_error(empirical_ntk(module, x, memory_budget=budget), want) < 1e-12
    with pytest.raises(TypeError):
        empirical_ntk(module, x, memory_budget=budget // 8)


def test_numbers_that_are_not_finite_are_refused_by_name() -> None:
    """At the last point, which the first look does not see."""
    module, x = Pooled(lambda h: h.mean(1), lowest=-10).double(), normal(6, 3, 4)
    x[5, 0, 0] = -20
    with pytest.raises(InputError, match="Linear 'last'"):
        empirical_ntk(module, x)


@pytest.mark.parametrize("pool", [lambda h: h.mean(1), lambda h: h[:, 1], lambda h: h[:, ::2].sum(1)])
@pytest.mark.parametrize("outputs", ["trace", "full"])
def test_pooled_tokens_equal_the_explicit_jacobian(pool: object, outputs: str) -> None:
    module, x, z = Pooled(pool).double(), normal(6, 3, 4), normal(4, 3, 4, seed=1)
    assert relative_error(empirical_ntk(module, x, outputs=outputs), kernel(module, x, None, outputs)) < 1e-12
    assert relative_error(empirical_ntk(module, x, z, outputs=outputs), kernel(module, x, z, outputs)) < 1e-12


@pytest.mark.parametrize("bias", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["same", "zero", "all zero", "same at the first point", "zero at the first point"])
def test_positions_that_say_nothing_new_are_left_out(kind: str, bias: float) -> None:
    a, b = normal(5, 4, 3), normal(5, 2, 4, 6, seed=1)
    points = slice(0, 1) if "first" in kind else slice(None)
    if kind.startswith("same"):
        b[points] = b[points, :, :1].expand_as(b[points])
    else:
        b[points, :, slice(None) if "all" in kind else slice(1, 3)] = 0
    factor = Outer(a, b, bias)
    ((sign, fewer),) = factor.terms()
    assert sign == 1.0
    expected = {"same": 1, "all zero": 1, "zero": 2}.get(kind, 4)
    assert fewer.sizes.positions == expected
    full = factor.columns(0, 6).flatten(1)
    K = torch.zeros(5, 5, dtype=torch.float64)
    add_gram(K, Pair(factor, factor, True, 2**20), 1)
    mirror(K, 1)
    assert float((K - full @ full.T).abs().max()) < 1e-12 * (1 + float(K.abs().max()))
