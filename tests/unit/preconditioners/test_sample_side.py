"""S on the sample side: against its dense form, on batches, and as a guest in a plain loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import spectrain
from spectrain import InputError, SamplePreconditioner, SpectrainWarning, Spectrum, apply_sample, spectral_maps
from spectrain.models import mlp
from spectrain.preconditioners import orthonormal_columns
from spectrain.preconditioners.orthonormal import safe_cholesky


def random_spectrum(n: int, k: int, seed: int = 0) -> Spectrum:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(n, n, generator=generator, dtype=torch.float64)
    return Spectrum.from_kernel(A @ A.T, rank=k)


def dense(V: Tensor, ratio: Tensor) -> Tensor:
    return torch.eye(len(V), dtype=V.dtype) - V @ torch.diag(1 - ratio) @ V.T


@given(n=st.integers(3, 20), C=st.integers(1, 4), seed=st.integers(0, 100), data=st.data())
def test_apply_equals_the_dense_matrix(n: int, C: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    spectrum = random_spectrum(n, k, seed)
    ratio = spectrum.ratio(spectral_maps.power(0.5))
    c = torch.randn(n, C, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    S = dense(spectrum.eigenvectors, ratio)
    torch.testing.assert_close(apply_sample(spectrum.eigenvectors, ratio, c), S @ c, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(apply_sample(spectrum.eigenvectors, ratio, c[:, 0]), S @ c[:, 0], rtol=1e-12, atol=1e-12)


@given(n=st.integers(3, 20), seed=st.integers(0, 100))
def test_S_is_symmetric_positive_definite_and_linear(n: int, seed: int) -> None:
    spectrum = random_spectrum(n, max(1, n // 2), seed)
    ratio = spectrum.ratio(spectral_maps.flatten())
    S = apply_sample(spectrum.eigenvectors, ratio, torch.eye(n, dtype=torch.float64))
    torch.testing.assert_close(S, S.T, rtol=0, atol=1e-13)
    assert torch.linalg.eigvalsh(S).min() > 0
    a, b = torch.randn(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    both = apply_sample(spectrum.eigenvectors, ratio, 2 * a + b)
    torch.testing.assert_close(both, 2 * S @ a + S @ b, rtol=1e-12, atol=1e-12)


def test_eigenvalues_of_KS_are_g_of_lambda() -> None:
    n, k = 12, 5
    A = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    K = A @ A.T
    spectrum = Spectrum.from_kernel(K, rank=k)
    S = dense(spectrum.eigenvectors, spectrum.ratio(spectral_maps.flatten()))
    found = torch.linalg.eigvals(K @ S / n).real.sort(descending=True).values
    full = torch.linalg.eigvalsh(K / n).flip(0)
    torch.testing.assert_close(found, full.clamp(max=float(full[k - 1])), rtol=1e-9, atol=1e-12)


def test_forward_is_the_identity_and_backward_applies_S() -> None:
    spectrum = random_spectrum(10, 4)
    S = SamplePreconditioner(spectral_maps.power(0.5))
    output = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(S(output), output)  # before the first update
    S.update(spectrum, dtype=torch.float64)
    c = torch.randn(10, 3, dtype=torch.float64)
    wrapped = S(output)
    assert torch.equal(wrapped, output)
    (wrapped * c).sum().backward()
    expected = apply_sample(spectrum.eigenvectors, spectrum.ratio(S.spectral_map), c)
    torch.testing.assert_close(output.grad, expected, rtol=1e-12, atol=1e-12)


def test_other_uses_of_the_output_keep_their_gradient() -> None:
    S = SamplePreconditioner(spectral_maps.flatten())
    S.update(random_spectrum(8, 3), dtype=torch.float64)
    weights = torch.ones(8, 1, dtype=torch.float64, requires_grad=True)
    output = 2 * weights
    S(output)
    with pytest.warns(SpectrainWarning, match="the loss does not use it"):
        output.sum().backward()
    torch.testing.assert_close(weights.grad, torch.full_like(weights, 2.0))


@pytest.mark.parametrize("size", [3, 7, 40, 64])
def test_a_batch_uses_its_rows_orthonormalised_in_order(size: int) -> None:
    N, k = 64, 6
    spectrum = random_spectrum(N, k)
    S = SamplePreconditioner(spectral_maps.power(0.5))
    S.update(spectrum, dtype=torch.float64)
    index = torch.randperm(N, generator=torch.Generator().manual_seed(1))[:size]
    output = torch.zeros(size, 1, dtype=torch.float64, requires_grad=True)
    c = torch.randn(size, 1, dtype=torch.float64)
    (S(output, index) * c).sum().backward()
    Q = torch.linalg.qr(spectrum.eigenvectors[index]).Q
    ratio = spectrum.ratio(S.spectral_map)[: Q.shape[1]]
    torch.testing.assert_close(output.grad, apply_sample(Q, ratio, c), rtol=1e-9, atol=1e-10)


def test_repeated_rows_in_a_batch_are_fine() -> None:
    S = SamplePreconditioner(spectral_maps.flatten())
    S.update(random_spectrum(16, 3), dtype=torch.float64)
    output = torch.zeros(20, 1, dtype=torch.float64, requires_grad=True)
    S(output, torch.arange(20) % 7).sum().backward()
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()


def test_a_new_spectrum_replaces_the_rows_kept_for_the_same_index() -> None:
    S = SamplePreconditioner(spectral_maps.flatten())
    index = torch.arange(12)
    for seed in (0, 1):
        spectrum = random_spectrum(12, 4, seed)
        S.update(spectrum, dtype=torch.float64)
        output = torch.zeros(12, 1, dtype=torch.float64, requires_grad=True)
        (S(output, index)[0]).sum().backward()
        c = torch.zeros(12, 1, dtype=torch.float64)
        c[0] = 1
        expected = apply_sample(spectrum.eigenvectors, spectrum.ratio(S.spectral_map), c)
        torch.testing.assert_close(output.grad, expected, rtol=1e-10, atol=1e-12)


def test_an_index_changed_in_place_is_noticed() -> None:
    spectrum = random_spectrum(40, 4)
    S = SamplePreconditioner(spectral_maps.flatten())
    S.update(spectrum, dtype=torch.float64)
    index, c = torch.arange(20), torch.randn(20, 1, dtype=torch.float64)
    for _ in range(2):
        output = torch.zeros(20, 1, dtype=torch.float64, requires_grad=True)
        (S(output, index) * c).sum().backward()
        Q = torch.linalg.qr(spectrum.eigenvectors[index]).Q
        torch.testing.assert_close(
            output.grad, apply_sample(Q, spectrum.ratio(S.spectral_map), c), rtol=1e-9, atol=1e-10
        )
        index += 20


def test_low_precision_gradients_keep_their_type() -> None:
    S = SamplePreconditioner(spectral_maps.power(0.5))
    S.update(random_spectrum(8, 3))
    output = torch.zeros(8, 1, dtype=torch.bfloat16, requires_grad=True)
    S(output).sum().backward()
    assert output.grad is not None
    assert output.grad.dtype == torch.bfloat16


def test_state_round_trip_loads_without_code(tmp_path: object) -> None:
    import io

    S = SamplePreconditioner(spectral_maps.power(0.5))
    S.update(random_spectrum(9, 3))
    buffer = io.BytesIO()
    torch.save(S.state_dict(), buffer)
    buffer.seek(0)
    restored = SamplePreconditioner(spectral_maps.power(0.5)).load_state_dict(torch.load(buffer, weights_only=True))
    outputs = [torch.zeros(9, 1, requires_grad=True) for _ in range(2)]
    for preconditioner, output in zip((S, restored), outputs, strict=True):
        preconditioner(output)[2].sum().backward()
    assert torch.equal(outputs[0].grad, outputs[1].grad)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "8 rows meets a spectrum of 10"),
        (torch.arange(7), "7 entries for a batch of 8"),
        (torch.arange(8) + 3, "rows 0 to 9"),
        (torch.arange(8) - 1, "rows 0 to 9"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(index: Tensor | None, message: str) -> None:
    S = SamplePreconditioner(spectral_maps.flatten())
    S.update(random_spectrum(10, 3))
    with pytest.raises(InputError, match=message):
        S(torch.zeros(8, 1, requires_grad=True), index)


def test_a_map_that_is_not_positive_is_refused_and_the_old_S_stays() -> None:
    S = SamplePreconditioner(spectral_maps.flatten())
    S.update(random_spectrum(10, 3))
    before = S.state_dict()
    S.spectral_map = lambda eigenvalues: -torch.ones_like(eigenvalues)  # type: ignore[assignment]
    with pytest.raises(InputError, match="positive"):
        S.update(random_spectrum(10, 4))
    assert S.state_dict() == before


@given(n=st.integers(1, 60), k=st.integers(1, 12), seed=st.integers(0, 50))
def test_orthonormal_columns_span_the_leading_columns(n: int, k: int, seed: int) -> None:
    rows = torch.randn(n, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    Q = orthonormal_columns(rows)
    assert Q.shape == (n, min(n, k))
    torch.testing.assert_close(Q.T @ Q, torch.eye(Q.shape[1], dtype=torch.float64), rtol=0, atol=1e-10)
    for j in range(1, Q.shape[1] + 1):  # the first j columns of Q span those of rows: the order of the modes is kept
        missing = rows[:, :j] - Q[:, :j] @ (Q[:, :j].T @ rows[:, :j])
        assert missing.abs().max() < 1e-9


def test_the_gram_matrix_by_blocks_of_columns_is_the_gram_matrix() -> None:
    rows = torch.randn(700, 150, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    L = safe_cholesky(rows)
    assert L is not None
    torch.testing.assert_close(L @ L.T, rows.T @ rows, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("landmarks", ["grid", "random"])
def test_the_table_lies_by_rows(landmarks: str) -> None:
    """Rows of a batch are gathered several times slower from a table that lies by columns, as a triangular solve's."""
    x = torch.cartesian_prod(torch.linspace(-1, 1, 20), torch.linspace(-1, 1, 20))
    S = SamplePreconditioner(spectral_maps.flatten())
    model = spectrain.models.mlp(2, 1, width=16, depth=1)
    S.refresh(model, x, rank=8, subset_size=100, landmarks=landmarks, grid_shape=(20, 20))
    assert S.state_dict()["eigenvectors"][0].stride() == (8, 1)


def test_dependent_columns_fall_back_to_qr() -> None:
    rows = torch.ones(40, 3) + 1e-6 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    Q = orthonormal_columns(rows)
    torch.testing.assert_close(Q.T @ Q, torch.eye(3), rtol=0, atol=1e-5)


def test_refresh_is_kernel_spectrum_extension_and_update() -> None:
    torch.manual_seed(0)
    x = torch.rand(30, 2, dtype=torch.float64)
    model = spectrain.models.mlp(2, 1, width=32, depth=1).double()
    S = SamplePreconditioner(spectral_maps.power(0.5))
    for _ in range(2):  # the second one starts from the first
        S.refresh(model, x, rank=5)
    exact = Spectrum.from_kernel(spectrain.empirical_ntk(model, x), rank=5)
    output = torch.zeros(30, 1, dtype=torch.float64, requires_grad=True)
    c = torch.randn(30, 1, dtype=torch.float64)
    (S(output) * c).sum().backward()
    expected = apply_sample(exact.eigenvectors, exact.ratio(S.spectral_map), c)
    torch.testing.assert_close(output.grad, expected, rtol=1e-6, atol=1e-8)
    assert S.refresh(model, x, rank=5, subset_size=12).n == 12  # Nystroem: another number of landmarks starts anew
    S.refresh(model, torch.cartesian_prod(x[:6, 0], x[:5, 1]), rank=5, subset_size=12, grid_shape=(6, 5))


def test_two_added_lines_in_a_plain_loop_learn_a_high_frequency_sooner() -> None:
    """Frequency 4 on the circle, plain gradient descent at half of its largest stable rate, with and without S."""

    def final_loss(precondition: bool) -> float:
        torch.manual_seed(0)
        angle = torch.linspace(0, 2 * torch.pi, 65)[:-1]
        x, y = torch.stack([angle.cos(), angle.sin()], 1), (4 * angle).sin()[:, None]
        model = spectrain.models.mlp(2, 1, width=4096, depth=1, bias_scale=1.0)
        spectrum = Spectrum.from_kernel(spectrain.empirical_ntk(model, x), rank=10)
        S = SamplePreconditioner(spectral_maps.flatten())
        if precondition:
            S.update(spectrum)
        largest = float(spectrum.eigenvalues[-1 if precondition else 0])  # of K S / n; the loss adds a factor 2
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5 / largest)
        criterion = nn.MSELoss()
        for _ in range(30):
            loss = criterion(S(model(x)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    assert final_loss(True) < 0.05 < 0.3 < final_loss(False)


def test_refresh_on_other_points_starts_anew() -> None:
    torch.manual_seed(0)
    model = spectrain.models.mlp(2, 1, width=32, depth=1).double()
    S, fresh = SamplePreconditioner(spectral_maps.power(0.5)), SamplePreconditioner(spectral_maps.power(0.5))
    x = torch.rand(300, 2, dtype=torch.float64)
    S.refresh(model, torch.rand(300, 2, dtype=torch.float64), rank=8)
    assert torch.equal(S.refresh(model, x, rank=8).eigenvalues, fresh.refresh(model, x, rank=8).eigenvalues)
    assert torch.equal(
        S.refresh(model, x, rank=16).eigenvalues,
        SamplePreconditioner(S.spectral_map).refresh(model, x, rank=16).eigenvalues,
    )


@pytest.mark.parametrize("subset_size", [100, 40])
def test_a_network_in_bfloat16_keeps_its_modes_in_float32(subset_size: int) -> None:
    torch.manual_seed(0)
    network, x = mlp(2, 1, width=24, depth=2).bfloat16(), torch.rand(100, 2).bfloat16()
    S = SamplePreconditioner(spectral_maps.power(0.5))
    S.refresh(network, x, rank=6, subset_size=subset_size)
    rows = torch.arange(60)  # at least 4 k of them: a Cholesky decomposition, which there is none of in bfloat16
    S(network(x[rows]), rows).float().square().sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in network.parameters() if p.grad is not None)
