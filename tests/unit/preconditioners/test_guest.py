"""S in other people's loops: hooks, and every misuse told before a step is taken."""

import copy
import dataclasses
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spectrain import InputError, SamplePreconditioner, SpectrainWarning, Spectrum, empirical_ntk, spectral_maps
from spectrain.models import mlp
from spectrain.preconditioners import base
from spectrain.spectrum import solvers

MAP = spectral_maps.power(0.5)
N = 20


@pytest.fixture
def x() -> Tensor:
    return torch.rand(N, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))


@pytest.fixture
def S(model: nn.Module, x: Tensor) -> SamplePreconditioner:
    S = SamplePreconditioner(MAP)
    S.refresh(model, x, rank=4)
    return S


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_a_hook_does_what_the_call_does(S: SamplePreconditioner, model: nn.Module, x: Tensor) -> None:
    bare = gradients(model, model(x).square().mean())
    expected = gradients(model, S(model(x)).square().mean())
    assert not torch.allclose(bare[0], expected[0])
    with S.attached(model):
        torch.testing.assert_close(gradients(model, model(x).square().mean()), expected, rtol=0, atol=0)
    handle = S.attach(model)
    torch.testing.assert_close(gradients(model, model(x).square().mean()), expected, rtol=0, atol=0)
    handle.remove()
    torch.testing.assert_close(gradients(model, model(x).square().mean()), bare, rtol=0, atol=0)


def test_an_attached_S_takes_the_index_of_each_batch_once(S: SamplePreconditioner, model: nn.Module, x: Tensor) -> None:
    index = torch.randperm(N)[:8]
    expected = gradients(model, S(model(x[index]), index).square().mean())
    with S.attached(model, index):
        torch.testing.assert_close(gradients(model, model(x[index]).square().mean()), expected, rtol=0, atol=0)
        with pytest.raises(InputError, match="pass each sample's row"):
            model(x[index])
        S.index = index
        torch.testing.assert_close(gradients(model, model(x[index]).square().mean()), expected, rtol=0, atol=0)


def test_an_attached_S_lets_validation_and_kernels_alone(S: SamplePreconditioner, model: nn.Module, x: Tensor) -> None:
    K = empirical_ntk(model, x)
    with S.attached(model):
        assert torch.equal(empirical_ntk(model, x), K)
        S.refresh(model, x, rank=4)
        with torch.no_grad():
            model(x[:3])
        model.eval()
        loss = model(x[:3]).sum()
        with pytest.warns(SpectrainWarning, match="trained in evaluation mode"):
            loss.backward()


def test_a_copy_of_an_attached_network_shares_the_modes(S: SamplePreconditioner, model: nn.Module, x: Tensor) -> None:
    with S.attached(model):
        average = torch.optim.swa_utils.AveragedModel(model)
        assert torch.equal(average(x), model(x))


@pytest.mark.filterwarnings("ignore:S is attached")
@pytest.mark.parametrize("twice", ["attach", "call", "run", "other"])
def test_two_preconditioners_are_refused(S: SamplePreconditioner, model: nn.Module, x: Tensor, twice: str) -> None:
    other = SamplePreconditioner(MAP)
    other.refresh(model, x, rank=4)
    misuses: dict[str, Callable[[], object]] = {
        "attach": lambda: S.attach(model),
        "call": lambda: other(model(x)),
        "run": lambda: S.run(model, x),
        "other": lambda: (other.attach(model[2]), model(x)),
    }
    with S.attached(model), pytest.raises(InputError, match="already"):
        misuses[twice]()


def test_a_loss_of_another_forward_pass_is_noticed(S: SamplePreconditioner, model: nn.Module, x: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    S(model(x))
    model(x).square().mean().backward()
    optimizer.step()
    with pytest.warns(SpectrainWarning, match="the loss does not use it"):
        S(model(x))


def test_a_hook_that_is_never_called_is_noticed(S: SamplePreconditioner, model: nn.Module, x: Tensor) -> None:
    with pytest.warns(SpectrainWarning, match="not asked for"), S.attached(Wrapper(model)):
        model(x)
    late = SamplePreconditioner(MAP)
    late.refresh(model, x, rank=4)
    unused = Wrapper(model)
    handle = late.attach(unused)
    with torch.no_grad():
        model[0].weight.mul_(0.9)
    with pytest.warns(SpectrainWarning, match="not asked for"):
        late.refresh(model, x, rank=4)
    handle.remove()


@pytest.mark.filterwarnings("error")
def test_no_warning_where_the_loss_uses_it(S: SamplePreconditioner, model: nn.Module, x: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        output = model(x)
        loss = S(output).square().mean() + 0.1 * output.abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        S(model(x)).square().mean()  # a loss that is only looked at
    output = model(x)
    S(output).square().mean().backward()
    S(model(x)).square().mean()  # before the step, too
    optimizer.step()
    S(model(x))


def test_a_copy_of_S_acts_like_it(S: SamplePreconditioner, model: nn.Module, x: Tensor) -> None:
    S.run(model, x).sum().backward()
    expected = gradients(model, S(model(x)).square().mean())
    for twin in (copy.deepcopy(S), pickle.loads(pickle.dumps(S))):
        torch.testing.assert_close(gradients(model, twin(model(x)).square().mean()), expected, rtol=0, atol=0)


def test_derivatives_for_the_loss_itself_are_refused(S: SamplePreconditioner, model: nn.Module, x: Tensor) -> None:
    x.requires_grad_()
    with pytest.raises(InputError, match=r"S\(residual\)"):
        torch.autograd.grad(S(model(x)).sum(), x, create_graph=True)


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_a_spectrum_of_another_network_is_refused(S: SamplePreconditioner, model: nn.Module, x: Tensor) -> None:
    for same in (model, Wrapper(model), copy.deepcopy(model)):
        S.run(same, x).sum().backward()
    S.attach(model[2]).remove()
    other = mlp(2, 1, width=8, depth=1)
    buffer = io.BytesIO()
    torch.save(S.state_dict(), buffer)
    buffer.seek(0)
    loaded = SamplePreconditioner(MAP).load_state_dict(torch.load(buffer, weights_only=True))
    loaded.run(model, x)
    for held in (S, loaded):
        with pytest.raises(InputError, match=r"another network: 0\.weight \[16, 2\] there"):
            held.run(other, x)
        with pytest.raises(InputError, match="another network"):
            held.attach(other)
    S.refresh(other, x, rank=4)
    S.run(other, x)


@pytest.mark.parametrize("rows", [[3] * 9, [0, 1, 2] * 10, [5, 5]])
def test_repeats_in_a_batch_keep_S_positive_definite(S: SamplePreconditioner, rows: list[int]) -> None:
    index = torch.tensor(rows)
    columns = []
    for e in torch.eye(len(rows)):
        output = torch.zeros(len(rows), 1, requires_grad=True)
        S(output, index).backward(e[:, None])
        assert output.grad is not None
        columns.append(output.grad[:, 0])
    dense = torch.stack(columns).double()
    torch.testing.assert_close(dense, dense.T, rtol=0, atol=1e-6)
    smallest = float(S.state_dict()["ratio"][0].min())
    assert torch.linalg.eigvalsh((dense + dense.T) / 2).min() > 0.99 * smallest


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: {"eigenvalues": s.eigenvalues * float("nan")}, "eigenvalues are not"),
        (
            lambda s: {"eigenvectors": s.eigenvectors.index_fill(0, torch.tensor(1), float("nan"))},
            "eigenvectors are not",
        ),
        (lambda s: {"eigenvectors": 2 * s.eigenvectors}, "not orthonormal"),
    ],
)
def test_bad_eigenpairs_are_refused_and_the_old_S_stays(
    S: SamplePreconditioner, model: nn.Module, x: Tensor, spoil: Callable[[Spectrum], dict[str, Any]], message: str
) -> None:
    before = S.state_dict()
    spectrum = Spectrum.from_kernel(empirical_ntk(model, x), rank=4)
    with pytest.raises(InputError, match=message):
        S.update(dataclasses.replace(spectrum, **spoil(spectrum)))
    assert S.state_dict() == before


def test_a_batch_on_no_device_is_refused(S: SamplePreconditioner, x: Tensor) -> None:
    with pytest.raises(InputError, match="'meta'"):
        S(torch.zeros(N, 1, device="meta", requires_grad=True))
    S(torch.zeros(N, 1, requires_grad=True))


def test_a_module_that_returns_no_tensor_is_refused(S: SamplePreconditioner, model: nn.Module, x: Tensor) -> None:
    class Pair(Wrapper):
        def forward(self, x: Tensor) -> Any:
            return self.inner(x), x

    pair = Pair(model)
    with S.attached(pair), pytest.raises(InputError, match="Pair returns a tuple"):
        pair(x)


def no_memory(*args: object, **kwargs: object) -> None:
    raise torch.OutOfMemoryError("out of memory")


def no_eigenpairs(*args: object, **kwargs: object) -> None:
    raise solvers.LinAlgError("did not converge")


@pytest.mark.parametrize("failure", ["nan", "memory", "eigh"])
def test_a_failed_refresh_keeps_the_last_good_spectrum(
    S: SamplePreconditioner, model: nn.Module, x: Tensor, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, last = S.state_dict(), S.refresh(model, x, rank=4)
    before = S.state_dict()
    if failure == "nan":
        nn.init.constant_(next(model.parameters()), float("nan"))
    if failure == "memory":
        monkeypatch.setattr("spectrain.preconditioners.landmarks.empirical_ntk", no_memory)
    if failure == "eigh":
        monkeypatch.setattr(solvers, "dense", no_eigenpairs)
        monkeypatch.setattr(solvers, "keep_basis", no_eigenpairs)
    with pytest.warns(SpectrainWarning, match="the last good spectrum stays"):
        assert S.refresh(model, x, rank=4) is last
    assert S.state_dict() == before
    with pytest.raises((InputError, RuntimeError)):
        SamplePreconditioner(MAP).refresh(model, x, rank=4)
    with pytest.raises(InputError, match="allowed"):  # a slip of the pen is no failure
        S.refresh(model, x, rank=4, extension="nystroem")


def test_landmarks_are_chosen_once_for_the_same_points(
    model: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, choose = [], base.choose_landmarks
    monkeypatch.setattr(base, "choose_landmarks", lambda *a, **k: made.append(1) or choose(*a, **k))
    S = SamplePreconditioner(MAP)
    for subset_size in (10, 10, 12):
        S.refresh(model, x, rank=4, subset_size=subset_size)
    assert len(made) == 2


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.mix = nn.Embedding(7, 4), nn.Linear(6, 2)

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        return self.mix(torch.cat([self.tokens(tokens), features], 1))


@pytest.mark.parametrize("kind", ["images", "tuple", "dict"])
def test_other_inputs_take_random_landmarks_and_nystroem(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "images":
        model: nn.Module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
        x: Any = torch.rand(30, 1, 6, 6)
    else:
        model, pair = TwoInputs(), (torch.randint(7, (30,)), torch.rand(30, 2))
        x = pair if kind == "tuple" else dict(zip(("tokens", "features"), pair, strict=True))
    S = SamplePreconditioner(MAP)
    for _ in range(2):
        assert S.refresh(model, x, rank=4, subset_size=16).n == 16
    assert S._chosen is not None and S._chosen[1].extension == "nystrom"
    output = torch.zeros(30, 2, requires_grad=True)
    S(output).square().sum().backward()


@pytest.mark.slow
def test_a_compiled_network_takes_a_hook(S: SamplePreconditioner, model: nn.Module, x: Tensor) -> None:
    expected = gradients(model, S(model(x)).square().mean())
    compiled = torch.compile(model, backend="aot_eager")
    S.refresh(compiled, x, rank=4)
    for _ in range(2):
        with S.attached(compiled):
            found = gradients(model, compiled(x).square().mean())
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    with pytest.warns(SpectrainWarning, match="compiled before"), S.attached(model):  # torch does not look for it
        compiled(x)
