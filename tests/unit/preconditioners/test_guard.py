"""The guard on networks and toys that diverge without it, and the snapshot that it goes back to."""

import math
from itertools import pairwise
from typing import Any

import pytest
import pytorch_optimizer
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from spectrain import Guard, InputError, SamplePreconditioner, spectral_maps
from spectrain.data import ImageDataModule
from spectrain.models import center_output, mlp
from spectrain.preconditioners import choose_landmarks, guard
from spectrain.preconditioners.base import Preconditioner
from spectrain.preconditioners.refresh import last_due
from spectrain.preconditioners.snapshot import Snapshot
from spectrain.spectrum import Spectrum


def flatten_all(*, guarded: bool, steps: int, k: int = 256) -> tuple[list[float], Guard | None]:
    """Plain gradient descent on camera 32x32, width 256, k modes flattened, at the rate 1 / (2 lambda_k)."""
    data = ImageDataModule(size=32)
    torch.manual_seed(0)
    network = mlp(2, 1, width=256, depth=3)
    center_output(network, data.target_mean)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    S = SamplePreconditioner(spectral_maps.flatten())
    watch = Guard(S, network, optimizer) if guarded else None
    x, y = data.train_x, data.train_y
    landmarks, spectrum, losses = choose_landmarks(x, 1024, grid_shape=data.grid_shape), None, []
    for step in range(steps):
        if step == last_due(step, 20):
            spectrum = landmarks.spectrum(network, k, None if spectrum is None else spectrum.eigenvectors)
            S.update(landmarks.extend(spectrum, x, network))
            if watch is not None:
                watch.take(spectrum)
            if step == 0:  # the Hessian of the mean squared error is 2 K / n
                largest = (spectrum.eigenvalues * spectrum.ratio(S.spectral_map)).max()
                optimizer.param_groups[0]["lr"] = float(1 / (2 * largest))

        def loss_of_all() -> Tensor:
            return mse_loss(S(network(x)), y)

        loss = loss_of_all() if watch is None else watch.loss(loss_of_all, x)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses, watch


def test_flattening_256_modes_diverges_without_the_guard_and_trains_with_it() -> None:
    naive, _ = flatten_all(guarded=False, steps=12)
    assert not naive[-1] < 1e6 * naive[0]
    losses, watch = flatten_all(guarded=True, steps=25)
    assert watch is not None
    assert losses[-1] < 0.05 * losses[0]
    assert all(after <= guard.EXPLOSION * before for before, after in pairwise(losses))
    assert watch.shrunk_steps > 0 and 0 < watch.speed < 1


class Blend(Preconditioner):
    """S = diag(1/curvature) on the gradient, by hooks on the parameter: flattens a quadratic."""

    def __init__(self, weights: Tensor, curvature: Tensor) -> None:
        super().__init__(spectral_maps.flatten())
        weights.register_hook(lambda g: (1 - self.strength) * g + self.strength * g * curvature.min() / curvature)


class Quadratic(nn.Module):
    def __init__(self, curvature: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones_like(curvature))
        self.curvature = curvature

    def forward(self) -> Tensor:
        return (self.curvature * self.w.square()).sum() / 2


def spectrum_of(curvature: Tensor) -> Spectrum:
    k = len(curvature)
    return Spectrum(curvature, torch.eye(k, dtype=curvature.dtype), torch.zeros(k, dtype=curvature.dtype), 0.0)


CURVATURE = torch.tensor([100.0, 10.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("speed", [1.0, 0.3, 0.02, 0.004])
def test_the_largest_eigenvalue_stays_where_the_rate_wants_it(speed: float) -> None:
    """lambda_max(s K S_t) = max g for every speed s down to 1/rho, where t is 0."""
    network = Quadratic(CURVATURE)
    S = Blend(network.w, CURVATURE)
    watch = Guard(S, network, torch.optim.SGD(network.parameters(), lr=1.0))
    watch.take(spectrum_of(CURVATURE))
    assert watch.rho == pytest.approx(100.0)
    watch.speed = speed
    watch._set_speed(speed)
    loss = watch.loss(network)
    loss.backward()
    S_t = (1 - S.strength) + S.strength / CURVATURE
    torch.testing.assert_close(network.w.grad, speed * S_t * CURVATURE)
    expected = 1.0 if speed >= 0.01 else speed * 100
    assert float((speed * S_t * CURVATURE).max()) == pytest.approx(expected)
    assert float(loss.detach()) == pytest.approx(55.5)


def test_trust_ratio_of_a_quadratic() -> None:
    """With curvature 1 the ratio of a step is 1 - rate/2: .6 at rate .8, .05 at 1.9, .525 at half of that."""
    curvature = torch.ones(3, dtype=torch.float64)
    network, x = Quadratic(curvature), object()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.8)
    watch = Guard(Preconditioner(spectral_maps.identity()), network, optimizer)
    speeds = []
    for rate in (0.8, 1.9, 1.9, 1.9):
        loss = watch.loss(network, x)
        speeds.append(watch.speed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate
        before = float(loss.detach())
        optimizer.step()
        assert watch._predicted == pytest.approx(2 * before * rate * speeds[-1])
    assert speeds == [1.0, 1.0, 0.5, 0.6]
    assert watch.shrunk_steps == 1


def test_an_exploding_step_is_taken_back_with_the_optimizers_state() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    watch = Guard(Preconditioner(spectral_maps.identity()), network, optimizer)
    x, y = torch.randn(20, 3), torch.randn(20, 1)

    def loss_of_all() -> Tensor:
        return mse_loss(network(x), y)

    seen: list[Any] = []
    for step in range(8):
        loss = watch.loss(loss_of_all, x)
        if step == 7:
            break
        optimizer.zero_grad()
        loss.backward()
        seen.append((network.weight.detach().clone(), optimizer.state[network.weight].get("momentum_buffer")))
        optimizer.param_groups[0]["lr"] = 1e9 if step == 6 else 0.01
        optimizer.step()
    assert watch.rejected_steps == 1 and watch.speed == 0.25
    assert torch.equal(network.weight, seen[6][0])
    assert float(loss.detach()) == pytest.approx(float(loss_of_all().detach()))
    assert watch._snapshot is not None and watch._snapshot.interval == 2
    # Its snapshot is of step 6, since 6 is a multiple of the interval.
    assert float(optimizer.state[network.weight]["momentum_buffer"].abs().max()) < 10


def test_the_loss_may_be_evaluated_inside_the_step() -> None:
    """Lightning's order: step(closure), the closure evaluates the loss and goes back."""
    network = Quadratic(torch.ones(3, dtype=torch.float64))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    watch, x, weights = Guard(Preconditioner(spectral_maps.identity()), network, optimizer), object(), []
    for rate in (0.5, 50.0, 0.5):

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = watch.loss(network, x)
            weights.append(float(network.w.detach()[0]))
            loss.backward()
            return loss

        optimizer.param_groups[0]["lr"] = rate
        optimizer.step(closure)
    assert weights == [1.0, 0.5, 0.5] and watch.rejected_steps == 1


def test_line_searches_are_refused() -> None:
    network = Quadratic(CURVATURE)
    with pytest.raises(InputError, match="LBFGS has a line search of its own"):
        Guard(Preconditioner(spectral_maps.identity()), network, torch.optim.LBFGS(network.parameters()))


def test_minibatches_are_judged_every_sixteen_steps_and_on_suspicion() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    watch = Guard(Preconditioner(spectral_maps.identity()), network, optimizer)
    x, y = torch.randn(400, 3), 3 + 0.1 * torch.randn(400, 1)
    calls = 0
    for step in range(40):
        rows = slice(10 * step, 10 * step + 10)

        def loss_of_batch(rows: slice = rows) -> Tensor:
            nonlocal calls
            calls += 1
            return mse_loss(network(x[rows]), y[rows])

        loss = watch.loss(loss_of_batch, x[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 1e6 if step == 20 else 0.01
        optimizer.step()
    # 40 steps, two looks at step 16 and 32, and one more evaluation at the snapshot after the accident.
    assert watch.rejected_steps == 1 and calls == 43
    assert float(mse_loss(network(x), y).detach()) < 9


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.filterwarnings("error")
def test_a_step_taken_back_is_no_loss_that_forgot_S(same: bool) -> None:
    torch.manual_seed(0)
    x, network = torch.randn(12, 2), nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(network.parameters(), lr=50.0)
    S = SamplePreconditioner(spectral_maps.flatten())
    watch = Guard(S, network, optimizer)
    watch.take(S.refresh(network, x, rank=4))
    for _ in range(8):
        batch = x if same else x.clone()
        loss = watch.loss(lambda: mse_loss(S(network(x)), x[:, :1]), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert watch.rejected_steps > 0


def test_without_rescale_the_guard_stops_where_S_is_the_identity() -> None:
    network = Quadratic(CURVATURE)
    S = Blend(network.w, CURVATURE)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)  # diverges whatever S is, once t is 0
    watch = Guard(S, network, optimizer, rescale=False)
    watch.take(spectrum_of(CURVATURE))
    watch._set_speed(1e-9)
    assert (watch.speed, S.strength) == (pytest.approx(0.01), pytest.approx(0.0, abs=1e-12))
    x = object()
    for _ in range(4):
        optimizer.zero_grad()
        watch.loss(network, x).backward()
        optimizer.step()
    assert (watch.shrunk_steps, watch.rejected_steps) == (0, 0)


def test_adaptive_steps_are_taken_back_but_not_judged_by_their_ratio() -> None:
    network, x = Quadratic(CURVATURE), object()
    S = Blend(network.w, CURVATURE)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    watch = Guard(S, network, optimizer, rescale=False)
    watch.take(spectrum_of(CURVATURE))
    speeds = []
    for rate in (0.1, 2.3, 100.0, 0.01, 0.01, 0.01):  # 2.3 doubles the loss, 100 makes it explode
        loss = watch.loss(network, x)
        speeds.append(watch.speed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    assert watch.shrunk_steps == 0 and watch.rejected_steps == 1
    assert speeds[:3] == [1.0] * 3 and speeds[3] == 0.25 and speeds[-1] > speeds[3]


def test_the_predicted_decrease_is_a_lower_bound_for_a_gradient_step() -> None:
    """<J^T S c, dw> against the linearised loss, <J^T c, dw>, in float64."""
    torch.manual_seed(0)
    network = mlp(2, 1, width=16, depth=2).double()
    x, y = torch.rand(30, 2, dtype=torch.float64), torch.rand(30, 1, dtype=torch.float64)
    S = SamplePreconditioner(spectral_maps.flatten())
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    watch = Guard(S, network, optimizer)
    watch.take(S.refresh(network, x, rank=10))
    true = torch.autograd.grad(mse_loss(network(x), y), list(network.parameters()))
    before = [p.detach().clone() for p in network.parameters()]
    watch.loss(lambda: mse_loss(S(network(x)), y), x).backward()
    optimizer.step()
    moved = [p.detach() - b for p, b in zip(network.parameters(), before, strict=True)]
    linear = -sum(float((g * d).sum()) for g, d in zip(true, moved, strict=True))
    assert 0 < watch._predicted <= linear * (1 + 1e-12)
    S.strength = 0.0
    watch.loss(lambda: mse_loss(S(network(x)), y), x)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_a_resumed_guard_goes_on_as_if_nothing_had_happened(make: Any, tmp_path: Any) -> None:
    x, y = torch.rand(30, 2), torch.rand(30, 1)

    def start() -> tuple[nn.Module, Any, SamplePreconditioner, Guard]:
        torch.manual_seed(0)
        network = mlp(2, 1, width=16, depth=2)
        optimizer = make(network.parameters(), lr=30.0 if make is torch.optim.SGD else 0.3)
        S = SamplePreconditioner(spectral_maps.flatten())
        return network, optimizer, S, Guard(S, network, optimizer, rescale=make is torch.optim.SGD)

    def go_on(parts: Any, steps: range) -> None:
        network, optimizer, S, watch = parts
        for step in steps:
            if step == 0:
                watch.take(S.refresh(network, x, rank=10))
            loss = watch.loss(lambda: mse_loss(S(network(x)), y), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    whole, part, rest = start(), start(), start()
    go_on(whole, range(12))
    go_on(part, range(5))
    torch.save([thing.state_dict() for thing in part], tmp_path / "state")
    for thing, state in zip(rest, torch.load(tmp_path / "state", weights_only=True), strict=True):
        thing.load_state_dict(state)
    go_on(rest, range(5, 12))
    assert all(torch.equal(a, b) for a, b in zip(whole[0].parameters(), rest[0].parameters(), strict=True))
    assert (whole[3].speed, whole[3].shrunk_steps) == (rest[3].speed, rest[3].shrunk_steps)
    assert (whole[3].speed < 1) == (make is torch.optim.SGD)


def test_a_snapshot_restores_weights_buffers_and_state_again_and_again() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)

    def step() -> list[Tensor]:
        optimizer.zero_grad()
        network(torch.ones(5, 3) * torch.arange(5)[:, None]).square().mean().backward()
        optimizer.step()
        return [t.detach().clone() for t in network.state_dict().values()]

    step()
    snapshot = Snapshot(network, optimizer)
    assert snapshot.interval == 3  # Adam keeps two copies of the weights
    first = step()
    for _ in range(2):
        step()
        optimizer.param_groups[0]["lr"] = 0.5
        snapshot.restore()
        assert optimizer.param_groups[0]["lr"] == 0.5  # a schedule's business
        optimizer.param_groups[0]["lr"] = 0.1
        assert all(torch.equal(a, b) for a, b in zip(first, step(), strict=True))


@pytest.mark.parametrize(
    "make", [pytorch_optimizer.SOAP, pytorch_optimizer.Prodigy, pytorch_optimizer.ScheduleFreeAdamW]
)
def test_a_snapshot_holds_the_state_that_an_optimizer_keeps_in_its_groups(make: Any) -> None:
    network = mlp(2, 1, width=8, depth=1)
    optimizer = make(network.parameters(), lr=0.01)

    def steps(count: int) -> list[Tensor]:
        for _ in range(count):
            network.zero_grad()
            network(torch.ones(4, 2)).square().mean().backward()
            optimizer.step()
        return [p.detach().clone() for p in network.parameters()]

    for _ in range(2):  # the first snapshot is older than the state
        snapshot = Snapshot(network, optimizer)
        expected = steps(3)
        optimizer.param_groups[0]["initial_lr"] = 0.01  # a schedule came
        snapshot.restore()
        assert all(torch.equal(a, b) for a, b in zip(steps(3), expected, strict=True))
    assert optimizer.param_groups[0]["initial_lr"] == 0.01
