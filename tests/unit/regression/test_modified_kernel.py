"""The Modified Spectrum Kernel against analytic ones, and against what it must be on its own sample."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import legendre
from sklearn.gaussian_process.kernels import RBF
from torch import Tensor

from spectrain.errors import InputError
from spectrain.regression import ModifiedSpectrumKernel
from spectrain.regression.callables import rbf
from spectrain.spectral_maps import custom, flatten, heat, identity, power, ridge


def relu_ntk(cosine: Tensor) -> Tensor:
    """Two-layer ReLU NTK with bias, of the angle between two points of a sphere."""
    angle = torch.acos(cosine.clamp(-1, 1))
    return (cosine + 1) * (math.pi - angle) / math.pi + (torch.sin(angle) + (math.pi - angle) * cosine) / math.pi


def on_circle(x: Tensor, z: Tensor) -> Tensor:
    return relu_ntk(torch.cos(x[:, None] - z))


def on_sphere(x: Tensor, z: Tensor) -> Tensor:
    return relu_ntk(x @ z.T)


def circle_points(n: int, seed: int) -> Tensor:
    return 2 * math.pi * torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sphere_points(n: int, seed: int) -> Tensor:
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)


def circle_truth(x: Tensor, g: object, highest: int = 300) -> Tensor:
    """sum_kappa g(lambda_kappa) cos(kappa (x - z)), the coefficients by FFT of the kernel's own profile."""
    theta = 2 * math.pi * torch.arange(2**14, dtype=torch.float64) / 2**14
    lam = torch.fft.rfft(relu_ntk(torch.cos(theta))).real[: highest + 1] / 2**14
    new = g(lam)  # type: ignore[operator]
    kappa = torch.arange(highest + 1, dtype=torch.float64)
    waves = torch.cat([torch.cos(x[:, None] * kappa), torch.sin(x[:, None] * kappa)], 1)
    weights = torch.where(kappa == 0, 1.0, 2.0) * new
    return (waves * weights.repeat(2)) @ waves.T


def sphere_truth(x: Tensor, g: object, highest: int = 60) -> Tensor:
    """sum_l g(lambda_l) (2 l + 1) P_l(x . z) (the addition theorem)."""
    nodes, weights = legendre.leggauss(2000)
    profile = relu_ntk(torch.from_numpy(nodes)).numpy()
    lam = np.array([(weights * profile * legendre.Legendre.basis(d)(nodes)).sum() / 2 for d in range(highest + 1)])
    series = g(torch.from_numpy(lam)).numpy() * (2 * np.arange(highest + 1) + 1)  # type: ignore[operator]
    return torch.from_numpy(legendre.legval((x @ x.T).numpy(), series))


# MATHS: a two-layer ReLU NTK on the circle, unseen points: .078 / .041 / .020 (lambda^1.5), .43 / .18 / .071 (flat).
@pytest.mark.parametrize(("n", "root", "flat"), [(100, 0.085, 0.43), (400, 0.041, 0.18)])
def test_is_consistent_on_the_circle(n: int, root: float, flat: float) -> None:
    errors = circle_errors(n)
    assert errors[0] < root
    assert errors[1] < flat


@pytest.mark.slow
def test_is_consistent_on_the_circle_at_1600_points() -> None:
    errors = circle_errors(1600)
    assert errors[0] < 0.020
    assert errors[1] < 0.071


def circle_errors(n: int) -> Tensor:
    """Mean relative error on unseen points over three samples: lambda^1.5, and flattened at the fifth eigenvalue."""
    z = circle_points(200, seed=99)
    lam_5 = float(circle_eigenvalues()[4])
    errors = []
    for seed in range(3):
        x = circle_points(n, seed)
        cases = [
            (custom(torch.sqrt), lambda lam: lam.clamp(min=0) ** 1.5, "drop"),
            (flatten(4), lambda lam: lam.clamp(max=lam_5), "keep"),
        ]
        errors.append(
            [
                relative(ModifiedSpectrumKernel(on_circle, x, g, tail=tail)(z), circle_truth(z, new))
                for g, new, tail in cases
            ]
        )
    return torch.tensor(errors).mean(0)


def circle_eigenvalues() -> Tensor:
    theta = 2 * math.pi * torch.arange(2**14, dtype=torch.float64) / 2**14
    lam = torch.fft.rfft(relu_ntk(torch.cos(theta))).real[:50] / 2**14
    return torch.cat([lam[:1], lam[1:].repeat_interleave(2)]).sort(descending=True).values


def relative(A: Tensor, B: Tensor) -> float:
    return float((A - B).norm() / B.norm())


def test_is_consistent_on_the_sphere() -> None:
    z = sphere_points(150, seed=99)
    truth = sphere_truth(z, lambda lam: lam.clamp(min=0) ** 1.5)
    errors = [
        np.mean(
            [
                relative(ModifiedSpectrumKernel(on_sphere, sphere_points(n, seed), custom(torch.sqrt))(z), truth)
                for seed in range(3)
            ]
        )
        for n in (50, 400)
    ]
    assert errors[0] < 0.25
    assert errors[1] < 0.08
    assert errors[1] < 0.45 * errors[0]  # a rate of n^-1/2 gives .35


@pytest.mark.parametrize("rank", [None, 10])
def test_identity_gives_the_kernel_back_exactly(rank: int | None) -> None:
    x, z = sphere_points(60, 0), sphere_points(20, 1)
    kg = ModifiedSpectrumKernel(on_sphere, x, identity(), rank)
    assert torch.equal(kg(z), on_sphere(z, z))
    torch.testing.assert_close(kg(x, z), on_sphere(x, z))


@pytest.mark.parametrize("tail", ["keep", "drop"])
def test_on_its_sample_it_is_the_matrix_with_the_new_spectrum(tail: str) -> None:
    x = sphere_points(60, 0)
    kg = ModifiedSpectrumKernel(on_sphere, x, power(0.5, rank=7), tail=tail)  # type: ignore[arg-type]
    s = kg.spectrum
    assert s.resolved == 60
    expected = s.n * (s.eigenvectors * s.ratio(kg.g) * s.eigenvalues) @ s.eigenvectors.T
    torch.testing.assert_close(kg(x), expected)
    torch.testing.assert_close(kg(x.clone()), expected)
    phi = kg.eigenfunctions(x.clone())
    torch.testing.assert_close(phi.T @ phi / 60, torch.eye(60, dtype=torch.float64), rtol=0, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 99),
    rank=st.sampled_from([None, 3, 12]),
    tail=st.sampled_from(["keep", "drop"]),
    g=st.sampled_from([identity(), flatten(), flatten(2), power(0.7), ridge(0.01), heat(0.01)]),
)
def test_is_a_kernel_whatever_the_map(seed: int, rank: int | None, tail: str, g: object) -> None:
    x, z = sphere_points(30, seed), sphere_points(25, seed + 100)
    kg = ModifiedSpectrumKernel(on_sphere, x, g, rank, tail=tail)  # type: ignore[arg-type]
    K = kg(z)
    torch.testing.assert_close(K, K.T)
    torch.testing.assert_close(K, kg(z, z.clone()))
    assert float(torch.linalg.eigvalsh(K)[0]) > -1e-9 * float(K.diagonal().sum())


def test_the_order_of_the_sample_and_the_size_of_blocks_do_not_matter() -> None:
    x, z = sphere_points(40, 0), sphere_points(30, 1)
    expected = ModifiedSpectrumKernel(on_sphere, x, flatten(9))(z)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ModifiedSpectrumKernel(on_sphere, x[order], flatten(9))(z), expected)
    torch.testing.assert_close(ModifiedSpectrumKernel(on_sphere, x, flatten(9), block_size=7)(z), expected)


def test_takes_scikit_learn_kernels_lazy_ones_and_arrays() -> None:
    x, z = sphere_points(40, 0), sphere_points(10, 1)
    expected = ModifiedSpectrumKernel(rbf, x, flatten(5))(z)

    class Lazy:
        def __init__(self, x1: Tensor, x2: Tensor) -> None:
            self.K = rbf(x1, x2)

        def to_dense(self) -> Tensor:
            return self.K

    torch.testing.assert_close(ModifiedSpectrumKernel(Lazy, x, flatten(5))(z), expected)
    gp = ModifiedSpectrumKernel(RBF((3 / 2) ** 0.5), x.numpy(), flatten(5))(z.numpy())
    assert isinstance(gp, np.ndarray)
    np.testing.assert_allclose(gp, expected.numpy(), atol=1e-9)
    from_array = ModifiedSpectrumKernel(rbf, x, flatten(5))(z.numpy())
    np.testing.assert_allclose(from_array, expected.numpy())
    pair = ModifiedSpectrumKernel(lambda a, b: rbf(a[0], b[0]), (x, x), flatten(5))((z, z))
    torch.testing.assert_close(pair, expected)
    named = ModifiedSpectrumKernel(lambda a, b: rbf(a["x"], b["x"]), {"x": x}, flatten(5))({"x": z})
    torch.testing.assert_close(named, expected)


def test_the_kernel_is_never_asked_for_more_than_a_block_of_rows() -> None:
    asked = []

    def recorded(x1: Tensor, x2: Tensor) -> Tensor:
        asked.append(len(x1))
        return on_sphere(x1, x2)

    x, z = sphere_points(40, 0), sphere_points(30, 1)
    K = ModifiedSpectrumKernel(recorded, x, flatten(9), block_size=7)(z)
    torch.testing.assert_close(K, ModifiedSpectrumKernel(on_sphere, x, flatten(9))(z))
    assert max(asked) == 7


def test_takes_a_gpytorch_kernel() -> None:
    gpytorch = pytest.importorskip("gpytorch")
    kernel = gpytorch.kernels.RBFKernel().double()
    kernel.lengthscale = (3 / 2) ** 0.5
    x, z = sphere_points(40, 0), sphere_points(10, 1)
    expected = ModifiedSpectrumKernel(rbf, x, flatten(5))(z)
    torch.testing.assert_close(ModifiedSpectrumKernel(kernel, x, flatten(5))(z), expected)


def test_bad_kernels_are_refused() -> None:
    x = sphere_points(10, 0)
    with pytest.raises(InputError, match="shape"):
        ModifiedSpectrumKernel(lambda a, b: rbf(a, b)[..., None, None], x, identity())
    with pytest.raises(InputError, match="tail"):
        ModifiedSpectrumKernel(rbf, x, identity(), tail="cut")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no mode"):
        ModifiedSpectrumKernel(lambda a, b: 0 * rbf(a, b), x, identity())
