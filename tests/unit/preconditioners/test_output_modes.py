"""Several outputs: every form of S against its dense matrix, in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from spectrain import InputError, SamplePreconditioner, Spectrum, apply_sample, empirical_ntk, spectral_maps
from spectrain.models import mlp
from spectrain.preconditioners import Landmarks, softmax_hessian
from spectrain.preconditioners.output_modes import Curvature
from spectrain.preconditioners.row_factors import curved_factors

N, C, RANK = 24, 3, 5
MAP = spectral_maps.power(0.7)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return mlp(2, C, width=24, depth=2).double()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(N, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def as_matrix(K: Tensor) -> Tensor:
    return K.permute(0, 2, 1, 3).reshape(K.shape[0] * K.shape[2], -1)


def gradient(S: SamplePreconditioner, output: Tensor, c: Tensor, index: Tensor | None = None) -> Tensor:
    output = output.detach().requires_grad_()
    (S(output, index) * c).sum().backward()
    assert output.grad is not None
    return output.grad


def upstream(n: int = N) -> Tensor:
    return torch.randn(n, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_each_output_has_the_spectrum_of_its_own_kernel(model: nn.Module, x: Tensor) -> None:
    S = SamplePreconditioner(MAP, outputs="each")
    for _ in range(2):  # the second one starts from the first
        S.refresh(model, x, rank=RANK)
    K, c = empirical_ntk(model, x, outputs="full"), upstream()
    found = gradient(S, model(x), c)
    for j in range(C):
        spectrum = Spectrum.from_kernel(K[:, :, j, j], rank=RANK)
        expected = apply_sample(spectrum.eigenvectors, spectrum.ratio(MAP), c[:, j])
        torch.testing.assert_close(found[:, j], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("shape", [(N, C), (N, C, 1)])
def test_full_kernel_couples_the_outputs(model: nn.Module, x: Tensor, shape: tuple[int, ...]) -> None:
    S = SamplePreconditioner(MAP, outputs="full")
    S.refresh(model, x, rank=RANK)
    K, c = as_matrix(empirical_ntk(model, x, outputs="full")), upstream()
    spectrum = Spectrum.from_kernel(K, rank=RANK)
    V = spectrum.eigenvectors
    dense = torch.eye(N * C, dtype=torch.float64) - V @ torch.diag(1 - spectrum.ratio(MAP)) @ V.T
    found = gradient(S, model(x).reshape(shape), c.reshape(shape))
    torch.testing.assert_close(found.flatten(), dense @ c.flatten(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("outputs", ["each", "full"])
@pytest.mark.parametrize("rows", [list(range(3, 15)), [0, 0, 7, 7, 7, 1], [2]])
def test_a_batch_takes_its_rows_orthonormalised(model: nn.Module, x: Tensor, outputs: str, rows: list[int]) -> None:
    index = torch.tensor(rows)
    S = SamplePreconditioner(MAP, outputs=outputs)
    S.refresh(model, x, rank=RANK)
    c = upstream(len(rows))
    found = gradient(S, model(x[index]), c, index)
    K = empirical_ntk(model, x, outputs="full")
    kernels = [K[:, :, j, j] for j in range(C)] if outputs == "each" else [as_matrix(K)]
    columns = c.T.unsqueeze(2) if outputs == "each" else c.reshape(1, -1, 1)
    for j, kernel in enumerate(kernels):
        spectrum = Spectrum.from_kernel(kernel, rank=RANK)
        at = spectrum.eigenvectors.reshape(N, -1, RANK)[index].reshape(-1, RANK)
        Q = torch.linalg.qr(at).Q
        expected = apply_sample(Q, spectrum.ratio(MAP)[: Q.shape[1]], columns[j])
        got = found[:, j : j + 1] if outputs == "each" else found.reshape(-1, 1)
        torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-8)


def roots(H: Tensor) -> tuple[Tensor, Tensor]:
    """H^1/2 and its pseudo-inverse as block-diagonal matrices."""
    values, vectors = torch.linalg.eigh(torch.block_diag(*H))
    good = values > 1e-12
    root = vectors[:, good] @ torch.diag(values[good].sqrt()) @ vectors[:, good].T
    inverse = vectors[:, good] @ torch.diag(values[good].rsqrt()) @ vectors[:, good].T
    return root, inverse


def test_matched_choice_is_the_modified_spectrum_of_the_kernel_that_cross_entropy_sees(
    model: nn.Module, x: Tensor
) -> None:
    S = SamplePreconditioner(MAP, outputs="full", curvature=softmax_hessian)
    S.refresh(model, x, rank=RANK)
    f = model(x).detach().requires_grad_()
    y = torch.arange(N) % C
    torch.nn.functional.cross_entropy(S(f), y, reduction="sum").backward()
    p = f.detach().softmax(1)
    c = (p - torch.nn.functional.one_hot(y, C)).flatten()
    root, inverse = roots(softmax_hessian(f.detach()))
    K = as_matrix(empirical_ntk(model, x, outputs="full"))
    M = Spectrum.from_kernel(root @ K @ root, rank=RANK)
    Q, removed = M.eigenvectors, torch.diag(1 - M.ratio(MAP))
    T = torch.eye(N * C, dtype=torch.float64) - Q @ removed @ Q.T
    assert f.grad is not None
    torch.testing.assert_close(f.grad.flatten(), root @ T @ inverse @ c, rtol=1e-6, atol=1e-7)

    # Parameter side: J^T S_H c = P J^T c with P symmetric, 0 < P <= I; and so a descent direction.
    J = torch.cat(
        [
            torch.autograd.functional.jacobian(
                lambda w, name=name: torch.func.functional_call(model, {name: w}, (x,)).flatten(), p.detach()
            ).reshape(N * C, -1)
            for name, p in model.named_parameters()
        ],
        1,
    )
    U = J.T @ root @ Q / (N * C * M.eigenvalues).sqrt()
    torch.testing.assert_close(U.T @ U, torch.eye(RANK, dtype=torch.float64), rtol=0, atol=1e-9)
    g = J.T @ c
    torch.testing.assert_close(J.T @ f.grad.flatten(), g - U @ removed @ (U.T @ g), rtol=1e-6, atol=1e-7)


@given(n=st.integers(1, 12), k=st.integers(1, 8), certain=st.floats(0, 60), seed=st.integers(0, 50))
def test_matched_S_has_positive_eigenvalues_however_certain_the_predictions(
    n: int, k: int, certain: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    H = softmax_hessian(certain * torch.randn(n, C, dtype=torch.float64, generator=generator))
    rows = torch.randn(n * C, k, dtype=torch.float64, generator=generator)
    ratio = torch.rand(k, dtype=torch.float64, generator=generator) + 1e-3
    S = curved_factors(rows, H, ratio).apply(torch.eye(n * C, dtype=torch.float64), 1.0)
    values = torch.linalg.eigvals(S)
    assert values.imag.abs().max() < 1e-4
    assert values.real.min() > 0.99 * float(ratio.clamp(max=1).min())


@pytest.mark.parametrize("curvature", [None, softmax_hessian])
@pytest.mark.parametrize("extension", ["interpolate", "nystrom"])
def test_from_all_points_the_extensions_change_nothing(
    model: nn.Module, x: Tensor, extension: str, curvature: Curvature | None
) -> None:
    found = []
    for landmarks in (Landmarks(x, "exact"), Landmarks(x, extension)):
        S = SamplePreconditioner(MAP, outputs="full", curvature=curvature)
        S.take(landmarks.spectrum(model, RANK), landmarks, model, x)
        found.append(gradient(S, model(x), upstream() - upstream().mean(1, keepdim=True)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("outputs", ["each", "full"])
@pytest.mark.parametrize("extension", ["interpolate", "nystrom"])
def test_modes_reach_the_other_points(extension: str, outputs: str) -> None:
    torch.manual_seed(0)
    model = mlp(2, C, width=64, depth=2).double()
    x = torch.cartesian_prod(*[torch.linspace(-1, 1, 12, dtype=torch.float64)] * 2)
    exact, extended = (SamplePreconditioner(MAP, outputs=outputs) for _ in range(2))
    exact.refresh(model, x, rank=12)
    extended.refresh(model, x, rank=12, subset_size=72, extension=extension)
    for V, U in zip(exact.state_dict()["eigenvectors"], extended.state_dict()["eigenvectors"], strict=True):
        assert torch.linalg.svdvals(V[:, :3].T @ U).min() > 0.97


def test_softmax_hessian_is_the_second_derivative_of_cross_entropy() -> None:
    f = torch.randn(1, C, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([1])
    expected = torch.autograd.functional.hessian(lambda f: torch.nn.functional.cross_entropy(f, y), f)[0, :, 0]
    torch.testing.assert_close(softmax_hessian(f)[0], expected, rtol=1e-12, atol=1e-14)


def test_choices_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match="allowed: trace, each, full"):
        SamplePreconditioner(MAP, outputs="sum")
    with pytest.raises(InputError, match="needs outputs='full'"):
        SamplePreconditioner(MAP, curvature=softmax_hessian)


def test_a_hessian_of_the_wrong_shape_is_refused(model: nn.Module, x: Tensor) -> None:
    S = SamplePreconditioner(MAP, outputs="full", curvature=lambda f: f)
    with pytest.raises(InputError, match=r"must return the loss's Hessian, \[n, C, C\]"):
        S.refresh(model, x, rank=RANK)


@pytest.mark.parametrize("outputs", ["trace", "each", "full"])
def test_a_spectrum_of_other_outputs_is_refused(model: nn.Module, x: Tensor, outputs: str) -> None:
    S = SamplePreconditioner(MAP, outputs=outputs)
    S.refresh(model, x, rank=RANK)
    with pytest.raises(InputError, match="3 outputs, and this batch has 2"):
        S(torch.zeros(N, 2, dtype=torch.float64, requires_grad=True))
