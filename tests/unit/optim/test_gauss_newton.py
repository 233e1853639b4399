"""Gauss-Newton against dense linear algebra, the library's own ridge map, and a problem with a known minimum."""

import warnings
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from spectrain import InputError, SpectrainWarning, Spectrum, apply_sample, spectral_maps
from spectrain.optim import DenseLinearization, GaussNewton, linearize
from spectrain.optim.gauss_newton import DampedSystem


def dense(n: int, P: int, seed: int = 0) -> DenseLinearization:
    g = torch.Generator().manual_seed(seed)
    J = torch.randn(n, P, generator=g, dtype=torch.float64) * torch.logspace(0, -3, P, dtype=torch.float64)
    return DenseLinearization(torch.randn(n, generator=g, dtype=torch.float64), J)


def test_linearize_is_the_jacobian() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    x = torch.rand(150, 2, dtype=torch.float64)  # more rows than one batch of backward passes
    params = list(net.parameters())
    lin = linearize(net(x)[:, 0], params)
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(net(p[None])[0, 0], params)]) for p in x]
    assert torch.allclose(lin.jacobian(), torch.stack(rows), atol=1e-14)
    assert torch.allclose(lin.r, net(x)[:, 0])
    v, d = torch.randn(150, dtype=torch.float64), torch.randn(21, dtype=torch.float64)
    J = lin.jacobian()
    assert torch.allclose(lin.pull(v), J.T @ v) and torch.allclose(lin.push(d), J @ d)
    assert torch.allclose(lin.gram(), J @ J.T)


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_both_sides_minimise_the_damped_linear_loss(shape: tuple[int, int], momentum: float) -> None:
    lin, mu = dense(*shape), 1e-3
    J, r = lin.jacobian(), lin.r
    before = torch.randn(shape[1], dtype=torch.float64)
    c = mu * J.square().sum()
    eye = torch.eye(shape[1], dtype=torch.float64)
    stacked = torch.cat([J, c.sqrt() * eye])
    target = torch.cat([-r, c.sqrt() * momentum * before])
    expected = torch.linalg.lstsq(stacked, target[:, None]).solution[:, 0]
    found = DampedSystem(lin).direction(mu, momentum, before)
    assert found is not None and torch.allclose(found, expected, rtol=1e-8)


def test_the_direction_is_the_ridge_map_of_the_library() -> None:
    """J^T S r with S from `Spectrum` and `spectral_maps.ridge`: one framework, up to the length of the step."""
    lin, mu = dense(20, 40), 1e-4
    spectrum = Spectrum.from_kernel(lin.gram())
    ridge = spectral_maps.ridge(mu * spectrum.trace)
    expected = lin.pull(apply_sample(spectrum.eigenvectors, spectrum.ratio(ridge), lin.r))
    found = DampedSystem(lin).direction(mu)
    assert found is not None
    cosine = -torch.dot(found, expected) / (found.norm() * expected.norm())
    assert float(cosine) == pytest.approx(1, abs=1e-10)


def fit(optimizer: GaussNewton, residuals: object, steps: int) -> list[float]:
    return [float(optimizer.step(residuals)) for _ in range(steps)]  # type: ignore[arg-type]


def curve(momentum: float = 0.0, mu: float = 1e-8) -> tuple[GaussNewton, object]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 10), nn.Tanh(), nn.Linear(10, 1)).double()
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
    return GaussNewton(net.parameters(), mu=mu, momentum=momentum), lambda: (net(x) - torch.sin(3 * x))[:, 0] / 40**0.5


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_curve_is_fitted_and_the_loss_never_rises(momentum: float) -> None:
    losses = fit(*curve(momentum), steps=30)
    assert losses[-1] < 1e-6 * losses[0]
    assert all(after <= before for before, after in pairwise(losses))


def test_a_linear_problem_takes_one_step() -> None:
    w = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    A, b = dense(10, 3).jacobian(), dense(10, 3, 1).r
    optimizer = GaussNewton([w], mu=1e-14)
    optimizer.step(lambda: A @ w - b)
    assert torch.allclose(w, torch.linalg.lstsq(A, b[:, None]).solution[:, 0], atol=1e-8)
    assert optimizer.state["step_size"] == pytest.approx(1.0)
    assert optimizer.state["halvings"] == 0


def test_the_step_is_halved_where_the_model_is_wrong() -> None:
    w = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    optimizer = GaussNewton([w], mu=1e-12)
    optimizer.step(lambda: torch.atan(w))  # Newton's method diverges from here
    assert optimizer.state["halvings"] >= 1
    assert float(w.detach().abs()) < 3


class _Rounded(DenseLinearization):
    """A kernel with an eigenvalue that rounding has made negative."""

    def gram(self) -> Tensor:
        return super().gram() - 1e-9 * torch.eye(len(self.r), dtype=torch.float64)


def test_more_damping_where_cholesky_fails() -> None:
    w = nn.Parameter(torch.ones(6, dtype=torch.float64))
    A = dense(4, 6).jacobian()
    A[3] = A[2]

    class Residuals:
        def __call__(self) -> Tensor:
            return A @ w

        def linearize(self) -> DenseLinearization:
            return _Rounded((A @ w).detach(), A)

    assert DampedSystem(Residuals().linearize()).direction(1e-14) is None
    optimizer = GaussNewton([w], mu=1e-14)
    optimizer.step(Residuals())
    assert optimizer.state["fallbacks"] == 0
    assert float((A @ w.detach()).norm()) < 1e-3


class _Broken(DenseLinearization):
    def gram(self) -> Tensor:
        return torch.full_like(super().gram(), float("nan"))

    jacobian = gram  # type: ignore[assignment]


def test_it_falls_back_to_a_plain_step_and_says_so() -> None:
    w = nn.Parameter(torch.ones(5, dtype=torch.float64))
    A = dense(4, 5).jacobian()

    class Residuals:
        def __call__(self) -> Tensor:
            return A @ w

        def linearize(self) -> DenseLinearization:
            return _Broken((A @ w).detach(), A)

    optimizer, before = GaussNewton([w]), float((A @ w).square().sum())
    with pytest.warns(SpectrainWarning, match=r"factorisation.*plain gradient step"):
        optimizer.step(Residuals())
    assert optimizer.state["fallbacks"] == 1
    assert float((A @ w).square().sum()) < before
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        optimizer.step(Residuals())
    assert optimizer.state["fallbacks"] == 2


def test_at_a_minimum_the_weights_stay() -> None:
    w = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = GaussNewton([w])
    with pytest.warns(SpectrainWarning, match="the weights stay"):
        optimizer.step(lambda: torch.stack([w[0], w[1], 1 + w[0] ** 2]))
    assert torch.equal(w, torch.zeros_like(w))


def test_momentum_survives_a_checkpoint() -> None:
    (one, residuals), (other, fresh) = curve(0.5), curve(0.5)
    fit(one, residuals, 3)
    for p, q in zip(one.param_groups[0]["params"], other.param_groups[0]["params"], strict=True):
        q.data.copy_(p.data)
    other.load_state_dict(one.state_dict())
    assert fit(one, residuals, 3) == fit(other, fresh, 3)


@pytest.mark.parametrize("lr", [1.0, 0.25])
def test_lr_is_the_part_of_the_linearised_step(lr: float) -> None:
    """Of linear residuals without a rest, 1 - lr of every one is left."""
    w = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = GaussNewton([w], mu=1e-14, lr=lr)
    optimizer.step(lambda: torch.stack([w[0], 3 * w[1]]))
    assert torch.allclose(w, torch.full_like(w, 1 - lr), atol=1e-12)


def test_a_schedule_that_has_ended_leaves_the_weights() -> None:
    w = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = GaussNewton([w])
    optimizer.param_groups[0]["lr"] = 0.0
    assert float(optimizer.step(lambda: 1 * w)) == 1.0
    assert torch.equal(w, torch.ones_like(w)) and optimizer.state["fallbacks"] == 0  # type: ignore[index]


BAD = [{"mu": 0.0}, {"mu": -1.0}, {"momentum": 1.0}, {"momentum": -0.1}, {"lr": 0.0}, {"lr": 1.5}]


@pytest.mark.parametrize("settings", BAD)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        GaussNewton([nn.Parameter(torch.zeros(1))], **settings)


@pytest.mark.parametrize("residuals", [lambda w: w.sum(), lambda w: w / 0])
def test_residuals_must_be_a_finite_vector(residuals: object) -> None:
    w = nn.Parameter(torch.ones(2, dtype=torch.float64))
    with pytest.raises(InputError, match="one finite vector"):
        GaussNewton([w]).step(lambda: residuals(w))  # type: ignore[operator]
    with pytest.raises(InputError, match="residual vector"):
        GaussNewton([w]).step()
