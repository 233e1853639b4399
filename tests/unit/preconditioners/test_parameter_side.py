"""P_u on the parameter side: the same step as S, its properties, its memory, its state."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spectrain
from spectrain import (
    InputError,
    ParameterPreconditioner,
    SamplePreconditioner,
    SpectrainWarning,
    Spectrum,
    apply_parameter,
    apply_sample,
)
from spectrain import spectral_maps as maps
from spectrain.models import mlp
from spectrain.preconditioners import pullback

HALF = maps.power(0.5)


class Block(nn.Module):
    """A transformer block on tokens [n, 3, 4], its outputs from the mean over the tokens."""

    def __init__(self, C: int) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.head = nn.Linear(4, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x).mean(1))


class Scaled(nn.Module):
    """With a parameter that is a scalar."""

    def __init__(self, C: int) -> None:
        super().__init__()
        self.omega, self.net = nn.Parameter(torch.tensor(1.5)), mlp(2, C, width=16, depth=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.omega * x)


NETWORKS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda C: mlp(2, C, width=16, depth=2), (2,)),
    "convolution": (
        lambda C: nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(48, C)),
        (1, 4, 4),
    ),
    "transformer block": (Block, (3, 4)),
    "scalar parameter": (Scaled, (2,)),
}


def problem(name: str = "mlp", C: int = 1, n: int = 24) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    x = torch.randn(n, *shape, dtype=torch.float64)
    return make(C).double(), x, torch.randn(n, C, dtype=torch.float64)


def flat(tensors: Any) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])


def matrix(P: ParameterPreconditioner, model: nn.Module, **how: Any) -> Tensor:
    """P_u as a dense matrix, column by column."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    size = sum(p.numel() for p in parameters)
    columns = []
    for e in torch.eye(size, dtype=parameters[0].dtype):
        flat_parts = e.clone().split([p.numel() for p in parameters])
        parts = [part.view_as(p) for part, p in zip(flat_parts, parameters, strict=True)]
        P.apply_(parameters, parts, **how)
        columns.append(flat(parts))
    return torch.stack(columns, 1)


@pytest.mark.parametrize("C", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_two_sides_agree(name: str, C: int) -> None:
    """One full-batch step of gradient descent: S on the outputs' gradient, P_u on the parameters'."""
    model, x, y = problem(name, C)
    other = copy.deepcopy(model)
    P = ParameterPreconditioner(HALF)
    optimizer = P.wrap(torch.optim.SGD(other.parameters(), lr=0.05))
    optimizer.refresh(other, x, rank=12)  # type: ignore[attr-defined]
    before = flat(model.parameters())

    K = spectrain.empirical_ntk(model, x, outputs="full").transpose(1, 2).reshape(len(x) * C, -1)
    spectrum = Spectrum.from_kernel(C * K, rank=12)  # of K/n
    output = model(x)
    (c,) = torch.autograd.grad((output - y).square().mean(), output, retain_graph=True)
    output.backward(apply_sample(spectrum.eigenvectors, spectrum.ratio(HALF), c.flatten()).view_as(c))
    torch.optim.SGD(model.parameters(), lr=0.05).step()

    (other(x) - y).square().mean().backward()
    plain = flat(p.grad for p in other.parameters())
    optimizer.step()
    torch.testing.assert_close(flat(other.parameters()), flat(model.parameters()), rtol=0, atol=1e-10)
    assert (flat(model.parameters()) - (before - 0.05 * plain)).abs().max() > 1e-3  # and is not plain descent's


def test_the_sample_side_of_one_output_is_the_class_that_people_use() -> None:
    model, x, y = problem()
    other = copy.deepcopy(model)
    S, P = SamplePreconditioner(HALF), ParameterPreconditioner(HALF)
    S.refresh(model, x, rank=9)
    P.refresh(other, x, rank=9)
    (S(model(x)) - y).square().mean().backward()
    (other(x) - y).square().mean().backward()
    P.apply_(list(other.parameters()), [p.grad for p in other.parameters()])
    torch.testing.assert_close(
        flat(p.grad for p in other.parameters()), flat(p.grad for p in model.parameters()), rtol=0, atol=1e-10
    )


def test_k_modes_of_the_trace_kernel_are_kC_of_the_full_one_where_they_commute() -> None:
    """K = K_trace (x) I_C holds exactly when the last layer alone is trained."""
    model, x, y = problem("mlp", C=3)
    for p in list(model.parameters())[:-2]:
        p.requires_grad_(False)
    trained = list(model.parameters())[-2:]
    trace = Spectrum.from_kernel(spectrain.empirical_ntk(model, x), rank=4)
    full = pullback.full_spectrum(Spectrum.from_kernel(spectrain.empirical_ntk(model, x), rank=12), x, model)
    torch.testing.assert_close(full.eigenvalues, trace.eigenvalues.repeat_interleave(3), rtol=1e-9, atol=1e-12)
    cut = maps.custom(lambda values: torch.where(values > 0.999 * trace.eigenvalues[3], 0.25, 1.0).to(values))
    P = ParameterPreconditioner(cut)
    P.refresh(model, x, rank=12)
    output = model(x)
    (c,) = torch.autograd.grad((output - y).square().mean(), output, retain_graph=True)
    output.backward(apply_sample(trace.eigenvectors, trace.ratio(cut), c), retain_graph=True)
    sample = flat(p.grad for p in trained)
    model.zero_grad()
    output.backward(c)
    P.apply_(trained, [p.grad for p in trained])
    torch.testing.assert_close(flat(p.grad for p in trained), sample, rtol=0, atol=1e-10)


def test_the_plain_function_is_the_dense_matrix() -> None:
    U = torch.linalg.qr(torch.randn(30, 4, dtype=torch.float64)).Q
    ratio, g = torch.tensor([0.1, 0.2, 0.5, 0.9], dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    dense = torch.eye(30, dtype=torch.float64) - U @ torch.diag(1 - ratio) @ U.T
    torch.testing.assert_close(apply_parameter(U, ratio, g), dense @ g, rtol=1e-12, atol=1e-12)


@settings(max_examples=15)
@given(
    strength=st.floats(0, 1), k=st.integers(1, 10), points=st.integers(20, 40), kind=st.sampled_from([None, "bfloat16"])
)
def test_P_is_symmetric_between_0_and_1(strength: float, k: int, points: int, kind: str | None) -> None:
    """With landmarks of any number, and with a rounded U."""
    torch.manual_seed(points)
    model, x = mlp(2, 1, width=3, depth=1).double(), torch.randn(points, 2, dtype=torch.float64)
    P = ParameterPreconditioner(maps.flatten(), kind)
    P.refresh(model, x, rank=k)
    P.strength = strength
    dense, root = matrix(P, model), matrix(P, model, root=True)
    exact = 1e-12 if kind is None else 1e-5  # a bfloat16 U works in float32
    torch.testing.assert_close(dense, dense.T, rtol=0, atol=exact)
    values = torch.linalg.eigvalsh(dense)
    assert values[0] > -exact and values[-1] < 1 + exact
    if kind is None and P.ready:
        assert values[0] > 0
        lowest = 1 - strength * float(P._lowered.max())
        assert float(values[0]) == pytest.approx(lowest, rel=1e-6)
    torch.testing.assert_close(root @ root, dense, rtol=0, atol=10 * exact)


def test_strength_blends_with_the_identity() -> None:
    model, x, _ = problem()
    model = mlp(2, 1, width=3, depth=1).double()
    P = ParameterPreconditioner(HALF)
    P.refresh(model, x, rank=8)
    whole, identity = matrix(P, model), torch.eye(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    P.strength = 0.3
    torch.testing.assert_close(matrix(P, model), 0.7 * identity + 0.3 * whole, rtol=0, atol=1e-12)
    P.strength = 0.0
    assert torch.equal(matrix(P, model), identity)


def test_unbiased_over_the_minibatches_of_an_epoch() -> None:
    model, x, y = problem()
    P = ParameterPreconditioner(HALF)
    P.refresh(model, x, rank=8, subset_size=12)
    parameters = list(model.parameters())

    def preconditioned(rows: Tensor) -> Tensor:
        model.zero_grad()
        (model(x[rows]) - y[rows]).square().mean().backward()
        P.apply_(parameters, [p.grad for p in parameters])
        return flat(p.grad for p in parameters)

    mean = torch.stack([preconditioned(rows) for rows in torch.randperm(24).split(4)]).mean(0)
    torch.testing.assert_close(mean, preconditioned(torch.arange(24)), rtol=0, atol=1e-12)


def test_the_order_of_the_parameters_does_not_matter() -> None:
    model, x, y = problem()
    P = ParameterPreconditioner(HALF)
    P.refresh(model, x, rank=8)
    (model(x) - y).square().mean().backward()
    parameters = list(model.parameters())
    results = []
    for order in (parameters, parameters[::-1]):
        gradients = [p.grad.clone() for p in order]
        P.apply_(order, gradients)
        results.append(dict(zip(order, gradients, strict=True)))
    for p in parameters:
        torch.testing.assert_close(results[0][p], results[1][p], rtol=0, atol=1e-14)


def test_a_part_without_a_gradient_counts_as_zero() -> None:
    model, x, y = problem()
    P = ParameterPreconditioner(HALF)
    P.refresh(model, x, rank=8)
    (model(x) - y).square().mean().backward()
    parameters = list(model.parameters())
    whole = [p.grad.clone() for p in parameters]
    whole[0].zero_()
    partly: list[Tensor | None] = [None, *(g.clone() for g in whole[1:])]
    P.apply_(parameters, whole)
    P.apply_(parameters, partly)
    assert partly[0] is None
    for a, b in zip(whole[1:], partly[1:], strict=True):
        assert torch.equal(a, b)


def test_gradients_of_any_memory_layout() -> None:
    model, x, y = problem("convolution", C=2)
    P = ParameterPreconditioner(HALF)
    P.refresh(model, x, rank=8)
    (model(x) - y).square().mean().backward()
    parameters, gradients = list(model.parameters()), [p.grad.clone() for p in model.parameters()]
    strided = [g.mT.contiguous().mT if g.ndim > 1 else g.clone() for g in gradients]
    assert not strided[0].is_contiguous()
    P.apply_(parameters, gradients)
    P.apply_(parameters, strided)
    torch.testing.assert_close(flat(strided), flat(gradients), rtol=0, atol=1e-15)


def test_U_is_pulled_back_in_parts_of_the_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, _ = problem("convolution", C=2)
    Z = torch.randn(48, 5, dtype=torch.float64)
    whole = pullback.pull_back(model, x, Z, None)
    monkeypatch.setattr(pullback, "MODES_AT_ONCE", 2)
    parts = pullback.pull_back(model, x, Z, None)
    f = model(x).flatten()
    for p in model.parameters():
        torch.testing.assert_close(parts[p], whole[p], rtol=1e-12, atol=1e-12)
        (oracle,) = torch.autograd.grad(f, p, Z[:, 3], retain_graph=True)
        torch.testing.assert_close(whole[p][3].view_as(p), oracle, rtol=1e-12, atol=1e-12)
    assert all(p.grad is None for p in model.parameters())


def test_modes_that_the_map_leaves_alone_take_no_memory() -> None:
    model, x, _ = problem()
    P = ParameterPreconditioner(maps.flatten(rank=3))
    P.refresh(model, x, rank=10)
    assert P.nbytes == 3 * 8 * sum(p.numel() for p in model.parameters())
    P = ParameterPreconditioner(maps.identity())
    P.refresh(model, x, rank=10)
    assert P.nbytes == 0 and not P.ready
    half = ParameterPreconditioner(maps.flatten(rank=3), "bfloat16")
    half.refresh(model, x, rank=10)
    assert half.nbytes == 3 * 2 * sum(p.numel() for p in model.parameters())


def test_a_rounded_U_is_close_to_the_exact_one() -> None:
    model, x, y = problem()
    (model(x) - y).square().mean().backward()
    gradients = []
    for kind in (None, "bfloat16"):
        P = ParameterPreconditioner(HALF, kind)
        P.refresh(model, x, rank=8)
        gradients.append([p.grad.clone() for p in model.parameters()])
        P.apply_(list(model.parameters()), gradients[-1])
    exact, rounded = map(flat, gradients)
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=0) > 0.9999


def test_more_than_the_memory_says_how_much_and_which_rank_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, _ = problem()
    P = ParameterPreconditioner(HALF)
    P.refresh(model, x, rank=8)
    kept = dict(P._blocks)
    size = 8 * sum(p.numel() for p in model.parameters())
    monkeypatch.setattr(
        pullback, "free_bytes", lambda device: 18 * size
    )  # and the old U's 7; each mode needs 2, one in passing
    with pytest.warns(SpectrainWarning, match=r"the last good .* needs .* GiB for 14 modes .* k=12 fits"):
        P.refresh(model, x, rank=15)
    assert all(P._blocks[p] is block for p, block in kept.items())
    P.refresh(model, x, rank=13)
    monkeypatch.setattr(pullback, "free_bytes", lambda device: 0)
    with pytest.raises(InputError, match="k=0 fits"):
        ParameterPreconditioner(HALF).refresh(model, x, rank=8)


def test_a_full_kernel_that_does_not_fit_says_how_many_landmarks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, _ = problem("mlp", C=3)
    monkeypatch.setattr(pullback, "free_bytes", lambda device: 2 * 8 * 36**2)
    with pytest.raises(InputError, match=r"24 landmarks with 3 outputs .* spectrum.subset_size=12 or less"):
        ParameterPreconditioner(HALF).refresh(model, x, rank=8)


def test_a_map_that_is_not_positive_leaves_the_old_U() -> None:
    model, x, _ = problem()
    P = ParameterPreconditioner(HALF)
    P.refresh(model, x, rank=8)
    kept = dict(P._blocks)
    P.spectral_map = lambda eigenvalues: -eigenvalues  # type: ignore[assignment]
    with pytest.warns(SpectrainWarning, match="the last good spectrum stays.*positive"):
        P.refresh(model, x, rank=8)
    assert all(P._blocks[p] is block for p, block in kept.items())


def test_a_pull_back_that_fails_leaves_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, _ = problem()
    P = ParameterPreconditioner(HALF)
    P.refresh(model, x, rank=8)

    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr("spectrain.preconditioners.parameter_side.pull_back", fails)
    with pytest.warns(SpectrainWarning, match=r"S is the identity until the next one: .*no memory"):
        P.refresh(model, x, rank=8)
    assert not P.ready and P.nbytes == 0
    monkeypatch.undo()
    P.refresh(model, x, rank=8)
    assert P.ready


@pytest.mark.parametrize("name", ["mlp", "scalar parameter"])
def test_saved_state_is_tensors_and_primitives(name: str) -> None:
    model, x, _ = problem(name)
    P = ParameterPreconditioner(HALF)
    P.refresh(model, x, rank=8)
    P.strength = 0.5
    buffer = io.BytesIO()
    torch.save(P.saved(model.parameters()), buffer)
    buffer.seek(0)
    other, restored = copy.deepcopy(model), ParameterPreconditioner(HALF)
    restored.restore(list(other.parameters()), torch.load(buffer, weights_only=True))
    vectors = [[torch.ones_like(p) for p in net.parameters()] for net in (model, other)]
    P.apply_(list(model.parameters()), vectors[0])
    restored.apply_(list(other.parameters()), vectors[1])
    assert torch.equal(*map(flat, vectors)) and flat(vectors[0]).min() < 0.99
    with pytest.raises(InputError, match="other parameters"):
        restored.restore(list(mlp(2, 1, width=8, depth=2).parameters()), P.saved(model.parameters()))


def test_bad_input() -> None:
    model, x, _ = problem()
    with pytest.raises(InputError, match="float32, bfloat16"):
        ParameterPreconditioner(HALF, "float8")
    P = ParameterPreconditioner(HALF)
    P.refresh(model, x, rank=8)
    stranger = nn.Parameter(torch.zeros(2))
    with pytest.raises(InputError, match="none of the parameters"):
        P.apply_([stranger], [torch.zeros(2)])
    first = next(model.parameters())
    with pytest.raises(InputError, match="whole gradients"):
        P.apply_([first], [torch.zeros(2, dtype=torch.float64)])


class Sum(nn.Module):
    """A network of two arguments, and the same of one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp(3, 2, width=8, depth=1).double()

    def forward(self, u: torch.Tensor, v: torch.Tensor | None = None) -> torch.Tensor:
        out: torch.Tensor = self.inner(u if v is None else u + v)
        return out


@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_inputs_of_several_tensors(kind: str) -> None:
    torch.manual_seed(0)
    model, u, v = Sum(), torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    found = []
    for x in (u + v, (u, v) if kind == "tuple" else {"u": u, "v": v}):
        P, g = ParameterPreconditioner(maps.flatten()), [torch.ones_like(p) for p in model.parameters()]
        P.refresh(model, x, rank=6)
        P.apply_(list(model.parameters()), g)
        found.append(flat(g))
    torch.testing.assert_close(*found)
    assert (found[0] - 1).abs().max() > 0.1
