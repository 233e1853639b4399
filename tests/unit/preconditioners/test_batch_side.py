"""S from each batch's own kernel, against the dense eigh of that kernel in float64."""

import copy
import io
import warnings
from collections.abc import Callable

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from spectrain import BatchPreconditioner, InputError, SpectrainWarning, empirical_ntk, spectral_maps
from spectrain.models import mlp
from spectrain.preconditioners import batch_side
from spectrain.spectral_maps import SpectralMap

EXACT = {"layers": None, "landmarks": None, "max_steps": 1000, "tolerance": 0.0}
ROOT = spectral_maps.power(0.5)


def network_and_points(C: int = 1, n: int = 24) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    network = mlp(2, C, width=16, depth=2, parameterization="standard").double()
    return network, torch.randn(n, 2, dtype=torch.float64), torch.randn(n, C, dtype=torch.float64)


def gradients(network: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def backward(S: BatchPreconditioner, network: nn.Module, x: Tensor, c: Tensor) -> list[Tensor]:
    network.zero_grad()
    (S.run(network, x) * c).sum().backward()
    return gradients(network)


def dense_S(K: Tensor, S: BatchPreconditioner) -> Tensor:
    values, vectors = torch.linalg.eigh(K / len(K))
    return vectors @ torch.diag(S.ratio(values.flip(0)).flip(0)) @ vectors.T


@pytest.mark.parametrize("g", [ROOT, spectral_maps.flatten(), spectral_maps.ridge(1e-3, 0.5, relative=True)])
@pytest.mark.parametrize(("C", "outputs"), [(1, "sum"), (3, "sum"), (3, "trace")])
def test_the_gradient_is_that_of_the_dense_S(g: SpectralMap, C: int, outputs: str) -> None:
    network, x, c = network_and_points(C)
    S = BatchPreconditioner(g, **EXACT, outputs=outputs)
    found = backward(S, network, x, c)
    S_c = dense_S(empirical_ntk(network, x, outputs=outputs), S) @ c
    expected = torch.autograd.grad((network(x) * S_c).sum(), list(network.parameters()))
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)
    assert S.skipped_steps == 0


def test_one_pass_and_two_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, c = network_and_points()
    S = BatchPreconditioner(ROOT, **EXACT)
    passes = []
    monkeypatch.setattr(batch_side, "pull_parameters", counted(passes, batch_side.pull_parameters))
    one = backward(S, network, x, c)
    assert len(passes) == 1
    handle = network[0].register_full_backward_hook(lambda *_: None)  # someone waits for the usual pass
    two = backward(S, network, x, c)
    handle.remove()
    assert len(passes) == 1
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def counted(calls: list[int], function: Callable) -> Callable:
    def call(*args: object) -> object:
        calls.append(1)
        return function(*args)

    return call


def test_the_output_is_the_networks_own_and_the_gradient_of_inputs_stays() -> None:
    network, x, c = network_and_points()
    S = BatchPreconditioner(spectral_maps.identity(), **EXACT)
    x.requires_grad_()
    output = S.run(network, x)
    assert torch.equal(output, network(x))
    (found,) = torch.autograd.grad((output * c).sum(), x)
    (expected,) = torch.autograd.grad((network(x) * c).sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("settings", [EXACT, {}, {"layers": 1}, {"layers": None, "landmarks": 6}])
def test_the_identity_map_changes_nothing(settings: dict) -> None:
    network, x, c = network_and_points()
    found = backward(BatchPreconditioner(spectral_maps.identity(), **settings), network, x, c)
    expected = torch.autograd.grad((network(x) * c).sum(), list(network.parameters()))
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


@hypothesis.settings(max_examples=20)
@given(seed=st.integers(0, 30), settings=st.sampled_from([EXACT, {}, {"layers": 1}, {"landmarks": 5, "layers": None}]))
def test_S_is_positive_and_knows_no_order(seed: int, settings: dict) -> None:
    """c . S c > 0 however few the Lanczos steps; permuted points give the permuted S c (but for landmarks)."""
    network, x, _ = network_and_points()
    generator = torch.Generator().manual_seed(seed)
    c = torch.randn(24, 1, dtype=torch.float64, generator=generator)
    S = BatchPreconditioner(ROOT, **settings)
    S_c = preconditioned(S, network, x, c)
    assert float((c * S_c).sum()) > 0
    assert float(S_c.norm()) <= float(c.norm()) * (1 + 1e-9)  # every ratio is at most 1
    if settings.get("landmarks") != 5:
        order = torch.randperm(24, generator=generator)
        torch.testing.assert_close(preconditioned(S, network, x[order], c[order]), S_c[order], rtol=1e-5, atol=1e-7)


def preconditioned(S: BatchPreconditioner, network: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    """S c, from where it arrives: the gradient of a parameter for each point that is added to the output."""
    shift = nn.Parameter(torch.zeros(len(x), 1, dtype=x.dtype))
    wrapped = Shifted(network, shift)
    (S.run(wrapped, x) * c).sum().backward()
    assert shift.grad is not None
    return shift.grad


class Shifted(nn.Module):
    """The network plus a constant for each point, which no kernel is asked about: it is handed in unregistered."""

    def __init__(self, network: nn.Module, shift: Tensor) -> None:
        super().__init__()
        self.network, self.shift = network, [shift]

    def forward(self, x: Tensor) -> Tensor:
        shift = self.shift[0]
        return self.network(x) + (shift if len(x) == len(shift) else shift[: len(x)])


def test_few_lanczos_steps_come_close() -> None:
    torch.manual_seed(0)
    network, x = mlp(2, 1, width=64, depth=2), torch.rand(300, 2)
    c = torch.randn(300, 1)
    S = BatchPreconditioner(ROOT, layers=None, landmarks=None)
    exact = dense_S(empirical_ntk(network, x, dtype=torch.float64), S) @ c.double()
    found = backward(S, network, x, c)
    expected = torch.autograd.grad((network(x) * exact.float()).sum(), list(network.parameters()))
    one, two = (torch.cat([g.flatten() for g in both]) for both in (found, expected))
    assert float(torch.cosine_similarity(one, two, dim=0)) > 0.95


def test_strength_blends_with_the_identity() -> None:
    network, x, c = network_and_points()
    S = BatchPreconditioner(ROOT, **EXACT)
    whole = backward(S, network, x, c)
    S.strength = 0.0
    none = backward(S, network, x, c)
    S.strength = 0.25
    for part, one, zero in zip(backward(S, network, x, c), whole, none, strict=True):
        torch.testing.assert_close(part, 0.25 * one + 0.75 * zero, rtol=1e-9, atol=1e-11)


def test_gradients_add_up_over_micro_batches() -> None:
    network, x, c = network_and_points()
    S = BatchPreconditioner(ROOT, **EXACT)
    parts = [backward(S, network, x[rows], c[rows]) for rows in (slice(0, 12), slice(12, 24))]
    network.zero_grad()
    for rows in (slice(0, 12), slice(12, 24)):
        (S.run(network, x[rows]) * c[rows]).sum().backward()
    for total, one, two in zip(gradients(network), *parts, strict=True):
        torch.testing.assert_close(total, one + two, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layers", [None, 2])
def test_autocast_keeps_types(layers: int | None) -> None:
    torch.manual_seed(0)
    network, x = mlp(2, 1, width=32, depth=2), torch.rand(40, 2)
    S = BatchPreconditioner(ROOT, layers=layers)
    with torch.autocast("cpu", torch.bfloat16):
        output = S.run(network, x)
        assert output.dtype == torch.bfloat16
        loss = (output.float() - 1).square().mean()
    loss.backward()
    assert all(g.dtype == torch.float32 and torch.isfinite(g).all() for g in gradients(network))
    half = mlp(2, 1, width=32, depth=2).bfloat16()
    found = backward(S, half, x.bfloat16(), torch.ones(40, 1).bfloat16())
    assert all(g.dtype == torch.bfloat16 for g in found)
    assert S.skipped_steps == 0


@pytest.mark.parametrize("layers", [None, 2])
def test_a_kernel_that_cannot_be_used_leaves_the_step_as_it_is(
    layers: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x, c = network_and_points()
    expected = torch.autograd.grad((network(x) * c).sum(), list(network.parameters()))
    S = BatchPreconditioner(ROOT, layers=layers)
    failures: list[Callable] = [
        lambda *_: torch.full((24, 24), float("nan"), dtype=torch.float64),
        fail(torch.OutOfMemoryError("no memory left")),
        fail(MemoryError("no memory left")),
        lambda *_: torch.zeros(24, 24, dtype=torch.float64),
    ]
    for count, failure in enumerate(failures, 1):
        monkeypatch.setattr(batch_side, "batch_kernel", failure)
        with pytest.warns(SpectrainWarning, match="went on without S"):
            found = backward(S, network, x, c)
        assert S.skipped_steps == count
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def fail(error: Exception) -> Callable:
    def raises(*_: object) -> None:
        raise error

    return raises


def test_an_overflow_is_left_to_the_gradient_scaler() -> None:
    network, x, c = network_and_points()
    S = BatchPreconditioner(ROOT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not all(torch.isfinite(g).all() for g in backward(S, network, x, c * float("inf")))
        assert all((g == 0).all() for g in backward(S, network, x, 0 * c))
    assert S.skipped_steps == 0


def test_no_gradient_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, _ = network_and_points()
    monkeypatch.setattr(batch_side, "batch_kernel", fail(AssertionError()))
    with torch.no_grad():
        assert torch.equal(BatchPreconditioner(ROOT).run(network, x), network(x))


def test_any_module_with_a_kernel() -> None:
    """A convolution with weight norm and a tuple of inputs."""
    torch.manual_seed(0)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3))
            self.head = nn.Linear(9, 2)

        def forward(self, image: Tensor, more: Tensor) -> Tensor:
            return self.head(torch.cat([self.conv(image).tanh().flatten(1), more], 1))

    module, x = Two().double(), (torch.randn(6, 1, 4, 4).double(), torch.randn(6, 1).double())
    c = torch.randn(6, 2, dtype=torch.float64)
    S = BatchPreconditioner(ROOT, **EXACT)
    S.strength = 0.0
    assert torch.equal(S.run(module, x), module(*x))
    S.strength = 1.0
    (S.run(module, x) * c).sum().backward()
    S_c = dense_S(empirical_ntk(module, x, outputs="sum"), S) @ c
    expected = torch.autograd.grad((module(*x) * S_c).sum(), list(module.parameters()))
    for one, two in zip(gradients(module), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-7, atol=1e-10)


def test_a_path_that_depends_on_the_data_takes_the_jacobian() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) if float(x.detach().sum()) > 0 else self.two(x)

    module, x = Fork().double(), torch.ones(4, 2, dtype=torch.float64)
    S = BatchPreconditioner(ROOT, **EXACT)
    for sign in (1.0, -1.0, 1.0):
        output = S.run(module, sign * x)
        assert torch.equal(output, module(sign * x))
        output.sum().backward()
    assert S.skipped_steps == 0


def test_a_compiled_network_trains() -> None:
    network, x, c = network_and_points()
    expected = backward(BatchPreconditioner(ROOT, **EXACT), network, x, c)
    S = BatchPreconditioner(ROOT, **EXACT)
    network.zero_grad()
    (S.run(torch.compile(network), x) * c).sum().backward()
    for one, two in zip(gradients(network), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "module",
    [nn.Sequential(nn.Linear(2, 4), nn.Dropout(), nn.Linear(4, 1)), nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))],
)
def test_what_has_no_kernel_is_refused_by_name(module: nn.Module) -> None:
    with pytest.raises(InputError, match=r"(Dropout|BatchNorm1d) '1'.*module\.eval\(\)"):
        BatchPreconditioner(ROOT).run(module, torch.randn(8, 2))
    module.eval()  # another mode is looked at anew
    BatchPreconditioner(ROOT).run(module, torch.randn(8, 2)).sum().backward()


@pytest.mark.parametrize(
    "g",
    [
        spectral_maps.power(0.5, rank=8),
        spectral_maps.flatten(rank=200),
        spectral_maps.bandpass(2, 6),
        spectral_maps.sobolev(1.0, 2),
    ],
)
def test_maps_that_count_are_refused(g: SpectralMap) -> None:
    with pytest.raises(InputError, match="counts eigenvalues"):
        BatchPreconditioner(g)


def test_maps_of_the_eigenvalue_itself_are_taken() -> None:
    for g in (spectral_maps.heat(1e-3), spectral_maps.raise_head(), spectral_maps.clip(ROOT, lo=1e-2)):
        BatchPreconditioner(g)
    S = BatchPreconditioner(ROOT, floor=1e-2)
    ratio = S.ratio(torch.tensor([1.0, 0.25, 1e-2, 1e-4, 0.0], dtype=torch.float64))
    torch.testing.assert_close(ratio, torch.tensor([0.1, 0.2, 1.0, 1.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 0}, "layers=0"),
        ({"landmarks": 0}, "landmarks=0"),
        ({"floor": 0.0}, "floor=0.0"),
        ({"outputs": "full"}, "allowed: sum, trace"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BatchPreconditioner(ROOT, **settings)


def test_a_resumed_run_equals_an_uninterrupted_one() -> None:
    network, x, y = network_and_points()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    S = BatchPreconditioner(ROOT)

    def train(steps: int) -> None:
        for _ in range(steps):
            loss = (S.run(network, x) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    train(3)
    buffer = io.BytesIO()
    torch.save([network.state_dict(), optimizer.state_dict(), S.state_dict()], buffer)
    train(3)
    straight = copy.deepcopy(network.state_dict())
    buffer.seek(0)
    states = torch.load(buffer, weights_only=True)
    network, S = copy.deepcopy(network), BatchPreconditioner(ROOT).load_state_dict(states[2])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    network.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])
    train(3)
    assert all(torch.equal(straight[name], p) for name, p in network.state_dict().items())
