"""`Spectrum` against float64 eigh, on spectra that are known."""

import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrain import spectral_maps
from spectrain.errors import InputError, SpectrainWarning
from spectrain.spectrum import Spectrum, solvers


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every pass of the block solver."""
    made: list[int] = []
    project = solvers._project

    def counted(*args: object) -> object:
        made.append(1)
        return project(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(solvers, "_project", counted)
    return made


def kernel(n: int, eigenvalues: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """K with the given eigenvalues of K/n and random orthonormal eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    Q = Q[:, : len(eigenvalues)]
    K = n * (Q * eigenvalues) @ Q.T
    return (K + K.T) / 2


def power_law(n: int, exponent: float = 2.0) -> torch.Tensor:
    return torch.arange(1, n + 1, dtype=torch.float64) ** -exponent


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "rank"), [(60, None), (60, 7), (400, 20)])
def test_matches_the_spectrum_the_kernel_was_built_from(n: int, rank: int | None, dtype: torch.dtype) -> None:
    truth = power_law(n)
    K = kernel(n, truth).to(dtype)
    s = Spectrum.from_kernel(K, rank)
    k = n if rank is None else rank
    error = (s.eigenvalues - truth[:k]).abs()
    assert (s.n, s.rank) == (n, k)
    assert s.eigenvalues.dtype == s.eigenvectors.dtype == s.residual_norms.dtype == torch.float64
    assert (error <= s.residual_norms + 1e-12 + s.noise_floor).all()
    assert float(error.max()) < (1e-9 if dtype == torch.float64 else 1e-6)
    torch.testing.assert_close(s.eigenvectors.T @ s.eigenvectors, torch.eye(k, dtype=torch.float64))
    true_residual = K.double() / n @ s.eigenvectors - s.eigenvectors * s.eigenvalues
    torch.testing.assert_close(s.residual_norms, true_residual.norm(dim=0), atol=1e-7, rtol=1e-3)
    assert float(s.residual_norms.max()) <= 2e-6
    assert s.trace == pytest.approx(float(truth.sum()), rel=1e-6)


def test_a_block_spectrum_spans_the_space_eigh_finds() -> None:
    K = kernel(500, power_law(500, 1.0))
    block = Spectrum.from_kernel(K, 30)
    dense = solvers.dense(K / 500, 30)
    cosines = torch.linalg.svdvals(block.eigenvectors.T @ dense.vectors)
    assert float(cosines.min()) > 1 - 1e-6


def test_a_warm_start_needs_fewer_products_and_gives_the_same_values(passes: list[int]) -> None:
    K = kernel(400, power_law(400, 1.5))
    cold = Spectrum.from_kernel(K, 20)
    cold_passes = len(passes)
    passes.clear()
    scale = 1 + 1e-3 * torch.sin(torch.arange(400, dtype=torch.float64))
    K2 = scale[:, None] * K * scale
    warm = Spectrum.from_kernel(K2, 20, init=cold.eigenvectors)
    assert len(passes) <= cold_passes - 2
    torch.testing.assert_close(warm.eigenvalues, solvers.dense(K2 / 400, 20).values, rtol=1e-6, atol=1e-9)


def test_a_restart_keeps_what_the_krylov_basis_knew(passes: list[int]) -> None:
    """On a slowly falling spectrum a restart from the block alone needs 14 passes, from twice the block 11."""
    Spectrum.from_kernel(torch.diag(600 * power_law(600, 0.5)), 20)
    assert len(passes) <= 12


def test_a_tolerance_below_the_rounding_does_not_spoil_the_basis(passes: list[int]) -> None:
    s = Spectrum.from_kernel(kernel(400, power_law(400, 1.5)).float(), 20, tolerance=0.0)
    assert float(s.residual_norms.max()) < 2e-6
    assert s.resolved == 20
    assert len(passes) < 20


@pytest.mark.parametrize("init_columns", [5, 40])
def test_an_init_of_another_width_is_used_too(init_columns: int) -> None:
    K = kernel(400, power_law(400))
    init = solvers.dense(K / 400, init_columns).vectors
    s = Spectrum.from_kernel(K, 20, init=init)
    torch.testing.assert_close(s.eigenvalues, power_law(20), rtol=1e-6, atol=1e-9)


def test_is_deterministic_and_leaves_the_global_generator_alone() -> None:
    K = kernel(400, power_law(400)).float()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Spectrum.from_kernel(K, 10)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    second = Spectrum.from_kernel(K, 10)
    assert torch.equal(first.eigenvectors, second.eigenvectors)


def test_a_low_rank_kernel_resolves_only_its_rank_and_no_map_touches_the_rest() -> None:
    truth = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
    for n in (50, 400):
        s = Spectrum.from_kernel(kernel(n, truth).float(), 8)
        assert s.resolved == 3
        assert "first 3 modes are resolved" in str(s)
        torch.testing.assert_close(
            s.ratio(spectral_maps.flatten()), torch.tensor([0.25, 0.5, 1, 1, 1, 1, 1, 1], dtype=torch.float64)
        )
        torch.testing.assert_close(s.ratio(spectral_maps.flatten(rank=5)), s.ratio(spectral_maps.flatten()))
        half = s.ratio(spectral_maps.custom(lambda e: torch.full_like(e, 0.5)))
        assert half.tolist() == [0.5] * 3 + [1.0] * 5


def test_a_float32_kernel_in_float64_clothes_keeps_its_noise_floor() -> None:
    K = kernel(60, power_law(60, 6.0)).float().double()
    s = Spectrum.from_kernel(K)
    assert 1e-12 < s.noise_floor < 1e-6
    assert s.resolved < 60


def test_a_zero_kernel_has_no_resolved_mode() -> None:
    s = Spectrum.from_kernel(torch.zeros(5, 5))
    assert s.resolved == 0
    assert torch.equal(s.ratio(spectral_maps.flatten()), torch.ones(5, dtype=torch.float64))


@settings(max_examples=20, deadline=None)
@given(n=st.integers(3, 40), exponent=st.floats(0.1, 3), scale=st.floats(1e-6, 1e6), seed=st.integers(0, 99))
def test_properties(n: int, exponent: float, scale: float, seed: int) -> None:
    K = kernel(n, power_law(n, exponent), seed)
    s = Spectrum.from_kernel(K)
    assert (s.eigenvalues[:-1] >= s.eigenvalues[1:]).all()
    scaled = Spectrum.from_kernel(scale * K)
    torch.testing.assert_close(scaled.eigenvalues, scale * s.eigenvalues, rtol=1e-8, atol=1e-12 * scale)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    permuted = Spectrum.from_kernel(K[order][:, order])
    torch.testing.assert_close(permuted.eigenvalues, s.eigenvalues, rtol=1e-8, atol=1e-12)


def test_state_survives_a_weights_only_checkpoint() -> None:
    s = Spectrum.from_kernel(kernel(30, power_law(30)), 4)
    file = io.BytesIO()
    torch.save(s.state_dict(), file)
    file.seek(0)
    loaded = Spectrum.from_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(loaded.eigenvectors, s.eigenvectors)
    assert torch.equal(loaded.residual_norms, s.residual_norms)
    assert (loaded.noise_floor, loaded.trace) == (s.noise_floor, s.trace)


def _bad(value: float) -> torch.Tensor:
    K = torch.eye(300)
    K[7, 9] = value
    return K


def test_from_scratch_a_large_part_of_the_modes_is_had_by_eigh_and_from_a_basis_by_passes(passes: list[int]) -> None:
    """Auto's first look: a Krylov basis costs several times as much on a flat kernel."""
    K = kernel(400, power_law(400, 0.3))
    first = Spectrum.from_kernel(K, 70)
    assert not passes
    torch.testing.assert_close(first.eigenvalues, power_law(400, 0.3)[:70])
    Spectrum.from_kernel(K, 70, init=first.eigenvectors, max_passes=1)
    Spectrum.from_kernel(K, 60, max_passes=1)
    assert len(passes) >= 2


@pytest.mark.parametrize(
    ("K", "rank", "said"),
    [
        (torch.zeros(3, 4), None, "square"),
        (torch.ones(1, 1), None, "at least two points"),
        (torch.eye(3, dtype=torch.long), None, "floating"),
        (torch.eye(3), 4, "rank=4"),
        (torch.eye(3), 0, "rank=0"),
        (_bad(math.nan), 5, "not finite"),
        (_bad(math.inf), None, "not finite"),
        (_bad(0.5), 5, "not symmetric"),
        (torch.diag(torch.tensor([1.0, 1.0, -0.1])), None, "not positive semi-definite"),
        (-torch.eye(3), None, "not positive semi-definite"),
    ],
)
def test_bad_input_gets_a_clear_error(K: torch.Tensor, rank: int | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Spectrum.from_kernel(K, rank)


def test_an_init_of_another_number_of_points_is_refused() -> None:
    with pytest.raises(InputError, match="init has shape"):
        Spectrum.from_kernel(torch.eye(400), 5, init=torch.zeros(300, 5))


@pytest.mark.parametrize(
    "g",
    [lambda e: e[:-1], lambda e: 0 * e, lambda e: -e, lambda e: e * math.nan, lambda e: e / 0, lambda e: 1.0],
)
def test_a_map_that_is_no_map_is_refused(g: object) -> None:
    s = Spectrum.from_kernel(kernel(30, power_law(30)), 4)
    with pytest.raises(InputError, match="spectral map"):
        s.ratio(g)  # type: ignore[arg-type]


def test_when_eigh_fails_the_old_basis_is_kept_with_its_true_residuals(monkeypatch: pytest.MonkeyPatch) -> None:
    K = kernel(400, power_law(400))
    old = Spectrum.from_kernel(K, 6)

    def fails(A: torch.Tensor) -> None:
        raise torch.linalg.LinAlgError("no convergence")

    monkeypatch.setattr(torch.linalg, "eigh", fails)
    with pytest.warns(SpectrainWarning, match="previous basis"):
        kept = Spectrum.from_kernel(2 * K, 6, init=old.eigenvectors)
    torch.testing.assert_close(kept.eigenvalues, 2 * old.eigenvalues)
    assert float(kept.residual_norms.max()) < 1e-5
    with pytest.raises(InputError, match="No eigensolver"), pytest.warns(SpectrainWarning):
        Spectrum.from_kernel(K, 6)


def test_eigh_falls_back_after_a_first_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    K = kernel(40, power_law(40))
    expected = Spectrum.from_kernel(K).eigenvalues
    eigh, calls = torch.linalg.eigh, 0

    def fails_twice(A: torch.Tensor) -> object:
        nonlocal calls
        calls += 1
        return eigh(A * math.nan if calls == 1 else A) if calls != 2 else (torch.full((40,), math.nan), A)

    monkeypatch.setattr(torch.linalg, "eigh", fails_twice)
    with pytest.warns(SpectrainWarning, match="on the CPU"):
        again = Spectrum.from_kernel(K)
    torch.testing.assert_close(again.eigenvalues, expected)


@pytest.mark.slow
def test_a_warm_refresh_of_4096_points_converges() -> None:
    """At the tolerance at which scripts/benchmarks/spectra.py times it against dense eigh."""
    K = kernel(4096, power_law(4096))
    cold = Spectrum.from_kernel(K, 64)
    scale = 1 + 1e-2 * torch.sin(torch.arange(4096, dtype=torch.float64))
    warm = Spectrum.from_kernel(scale[:, None] * K * scale, 64, init=cold.eigenvectors)
    assert float(warm.residual_norms.max()) < 1e-6 * float(warm.eigenvalues[0])
