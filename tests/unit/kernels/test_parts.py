"""The trace kernel of layers over many positions, one output's factors after another's."""

import weakref

import pytest
import torch
from torch import nn

from spectrain.errors import InputError
from spectrain.kernels import blocks, empirical_ntk, sinks
from spectrain.kernels.capture import Factors
from spectrain.kernels.factors import Outer
from spectrain.kernels.gram import Pair, add_gram, mirror
from spectrain.kernels.multiples import Multiples
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
def test_every_part_is_one_layer_and_gone_before_the_next(name: str) -> None:
    module, x, _ = build(name)
    network = Network(module)
    with undisturbed(network):
        seen = look(network, x, "trace", frozenset(), strict=True)
        single = one_by_one(seen, len(x), torch.inf)
        assert single
        parts: list[set[tuple[str, ...]]] = []
        kept: list[weakref.ref] = []

        def take(part: Factors) -> None:
            assert all(gone() is None for gone in kept)
            kept[:] = [weakref.ref(factor) for factor in part.values()]
            assert all(factor.C == 1 for names, factor in part.items() if names in single)
            parts.append(set(part))

        in_parts(network, x, seen.plan, single, take)
    *alone, rest = parts
    assert all(len(part) == 1 for part in alone)
    assert set().union(*alone) == single
    assert len(alone) <= seen.C * len(single)
    assert rest.isdisjoint(single)
    assert {name for part in parts for names in part for name in names} == set(network.params)


class Gated(nn.Module):
    """A layer over tokens and an elementwise function, then, `bent`, one more that mixes the units."""

    def __init__(self, bent: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 7)
        self.more = nn.Sequential(nn.Linear(5, 5), nn.Tanh()) if bent else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.more(nn.functional.gelu(self.first(x))).mean(1))


@pytest.mark.parametrize("bent", [False, True])
def test_outputs_that_are_multiples_of_the_first_take_one_product(bent: bool) -> None:
    module, x, first = Gated(bent).double(), normal(6, 9, 4), ("first.weight", "first.bias")
    network, parts = Network(module), []
    with undisturbed(network):
        seen = look(network, x, "trace", frozenset(), strict=True)
        assert first in one_by_one(seen, len(x), torch.inf)
        in_parts(network, x, seen.plan, frozenset([first]), lambda part: parts.extend(part))
    assert parts.count(first) == (7 if bent else 1)
    assert relative_error(empirical_ntk(module, x), kernel(module, x, None, "trace")) < 1e-12


@pytest.mark.parametrize("stranger", [None, 1, 2, 3])
def test_multiples_are_told_from_what_only_looks_like_them(stranger: int | None) -> None:
    """The stranger differs in one number of a point and a unit that a glance does not see."""
    first, factors = normal(4, 1, 3, 20), normal(4, 20, seed=1)
    first[..., 7] = 0
    outputs = [first * r for r in factors]
    if stranger is not None:
        outputs[stranger][3, 0, 1, 19] *= 1 + 1e-12  # not where the unit is largest, from which r is taken
    together = Multiples(outputs[0])
    assert [together.add(b) for b in outputs[1:]] == [c != stranger for c in (1, 2, 3)]
    counted = [b for c, b in enumerate(outputs) if c != stranger]
    one, total = torch.cat(counted, 1), together.total()
    want = torch.einsum("icto,jcso->itjso", one, one)
    assert float((torch.einsum("icto,jcso->itjso", total, total) - want).abs().max()) < 1e-12 * float(want.abs().max())


@pytest.mark.parametrize("tiny", [1e-21, 1e-38])
def test_a_first_output_that_is_all_but_zero_stands_alone(tiny: float) -> None:
    """Multiples of it would be infinite in float32."""
    first = torch.ones(2, 1, 3, 4)
    first[..., 2] = tiny
    together = Multiples(first)
    assert not together.add(torch.ones(2, 1, 3, 4))
    assert torch.equal(together.total(), first)


def test_layers_whose_outputs_share_work_stay_together() -> None:
    for name in ("mlp", "conv2d", "shared layer", "embedding"):
        module, x, _ = build(name)
        network = Network(module)
        with undisturbed(network):
            seen = look(network, x, "trace", frozenset(), strict=True)
            assert not {names for names in one_by_one(seen, len(x), torch.inf) if "0.weight" in names}


def only_in_parts() -> tuple[nn.Module, torch.Tensor, int]:
    """A network, points, and a budget that holds the factors of all of them with one output, not with 40."""
    module, x = Pooled(lambda h: h.tanh().sum(1), outputs=40).double(), normal(20, 3, 4)
    network = Network(module)
    with undisturbed(network):
        return module, x, 2 * len(x) * look(network, x, "trace", frozenset(), strict=True).costs.factors - 1


@pytest.mark.parametrize("fails", ["pass", "product"])
def test_out_of_memory_in_parts_goes_on_in_blocks_of_fewer_points(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (module, x, budget), real, tried, captured = only_in_parts(), blocks.capture, [], []
    want = empirical_ntk(module, x)

    def fail(*args: object) -> None:
        tried.append(1)
        raise torch.OutOfMemoryError

    def tight(*args: object) -> None:
        in_parts(*args[:-1], fail)

    def add(K: torch.Tensor, pair: Pair, E: int) -> None:
        (fail if pair.left.n == len(x) else add_gram)(K, pair, E)

    place = (blocks, "in_parts", tight) if fails == "pass" else (sinks, "add_gram", add)
    monkeypatch.setattr(*place)
    monkeypatch.setattr(blocks, "capture", lambda *args: (captured.append(len(args[1])), real(*args))[1])
    assert relative_error(empirical_ntk(module, x, memory_budget=budget), want) < 1e-12
    assert tried
    assert 1 <= max(captured) < len(x)


def test_no_memory_at_all_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(sinks, "add_gram", fail)
    with pytest.raises(InputError, match="no memory left"):
        empirical_ntk(*build("mlp")[:2])


def test_points_whose_factors_do_not_fit_are_one_block_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x, budget = only_in_parts()
    want = empirical_ntk(module, x)
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
