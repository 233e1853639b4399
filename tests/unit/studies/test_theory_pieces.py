"""The pieces that the studies of the theory share: descent with S, the two-layer network and its limit, settings."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from numpy.polynomial import legendre
from scipy.special import eval_legendre

from spectrain import InputError
from spectrain.kernels import empirical_ntk
from spectrain.preconditioners import SamplePreconditioner
from spectrain.spectral_maps import flatten
from spectrain.spectrum import Spectrum
from spectrain.studies.cells import Cells
from spectrain.studies.descent import descend, first_modes, measured_rate, steps_to
from spectrain.studies.same_solution import random_positive_definite
from spectrain.studies.settings import check_number, check_whole
from spectrain.studies.two_layer import circle, even_angles, sphere, two_layer, two_layer_limit, wave, zonal

ANGLE = even_angles(12)
X = circle(ANGLE)


def test_a_step_is_that_of_the_formula() -> None:
    network, y = two_layer(2, 8, 0), wave(ANGLE, 2)
    S, g_max = first_modes(network, X, flatten(3))
    parameters = list(network.parameters())
    before = [p.detach().clone() for p in parameters]
    rows = [torch.autograd.grad(f, parameters, retain_graph=True) for f in network(X)[:, 0]]
    J = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    spectrum = Spectrum.from_kernel(J @ J.T)
    V = spectrum.eigenvectors
    S_matrix = V @ torch.diag(spectrum.ratio(flatten(3))) @ V.T
    expected = -0.3 * J.T @ S_matrix @ (network(X) - y).detach()[:, 0] / len(X)
    list(islice(descend(network, X, y, S, lambda _: 0.3), 2))
    step = torch.cat([(p.detach() - b).flatten() for p, b in zip(parameters, before, strict=True)])
    torch.testing.assert_close(step, expected)
    assert g_max == pytest.approx(float(spectrum.eigenvalues[3]))


def test_the_measured_rate_is_a_share_of_the_largest_stable_one() -> None:
    network = two_layer(2, 64, 0)
    top = float(Spectrum.from_kernel(empirical_ntk(network, X).detach()).eigenvalues[0])
    assert measured_rate(network, X, None, 0.5, 4, 1)(0) == pytest.approx(1 / top, rel=0.02)
    S = SamplePreconditioner(flatten())
    flat = measured_rate(network, X, S, 0.5, 6, 10)
    assert flat(0) > 5 / top
    assert S.ready


def test_steps_are_counted_until_the_goal_and_no_further() -> None:
    y = wave(ANGLE, 1)
    found = steps_to(two_layer(2, 256, 0), X, y, None, lambda _: 0.4, 0.5, 200)
    assert found is not None
    residuals = [
        float(r.norm()) for _, r in islice(descend(two_layer(2, 256, 0), X, y, None, lambda _: 0.4), found + 1)
    ]
    assert residuals[-1] <= 0.5 * residuals[0] < residuals[-2]
    assert steps_to(two_layer(2, 256, 0), X, y, None, lambda _: 0.4, 0.5, found - 1) is None


def test_waves_and_harmonics_are_modes_of_the_limit_kernel() -> None:
    K = two_layer_limit(X) / len(X)
    for frequency in (1, 2, 4):
        v = wave(ANGLE, frequency)
        assert float(v.square().mean()) == pytest.approx(1)
        torch.testing.assert_close(K @ v, (v.T @ K @ v / (v.T @ v)) * v)
    points = sphere(400)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(400, dtype=torch.float64))
    # lambda_l = 1/2 int k(u) P_l(u) du, u the cosine between two points (Funk and Hecke).
    u, weight = (torch.from_numpy(a) for a in legendre.leggauss(1000))
    pole = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    profile = two_layer_limit(torch.stack([(1 - u**2).sqrt(), 0 * u, u], 1), pole)[:, 0]
    for degree in (1, 2, 3):
        v = zonal(points, degree)
        exact = float((weight * profile * torch.from_numpy(eval_legendre(degree, u.numpy()))).sum() / 2)
        assert float(v.square().mean()) == pytest.approx(1, rel=0.02)
        assert float(v.T @ two_layer_limit(points) @ v / (v.T @ v) / 400) == pytest.approx(exact, rel=0.05)


def test_the_limit_is_that_of_the_network_and_seeds_stay_apart() -> None:
    state = torch.random.get_rng_state()
    wide, same, other = two_layer(2, 4096, 1), two_layer(2, 4096, 1), two_layer(2, 4096, 2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(wide(X), same(X))
    assert not torch.equal(wide(X), other(X))
    limit = two_layer_limit(X)
    assert float((empirical_ntk(wide, X).detach() - limit).norm() / limit.norm()) < 0.1


def test_the_random_preconditioner_is_positive_definite_and_foreign_to_the_kernel() -> None:
    S = random_positive_definite(12, 3)
    f = torch.zeros(12, 1, dtype=torch.float64, requires_grad=True)
    rows = [torch.autograd.grad(S(1 * f), f, e[:, None])[0][:, 0] for e in torch.eye(12, dtype=torch.float64)]
    matrix, K = torch.stack(rows), two_layer_limit(X)
    torch.testing.assert_close(matrix, matrix.T)
    values = torch.linalg.eigvalsh(matrix)
    assert 0.3 <= float(values.min()) < float(values.max()) <= 1
    assert float((matrix @ K - K @ matrix).norm()) > 0.1


@dataclass
class Settings:
    """Stands for a study."""

    width: object = 8
    sizes: object = (1, 2)
    height: object = 0.5


def test_settings_are_refused_by_the_key_that_was_typed() -> None:
    check_whole(Settings(), "width", "sizes")
    check_number(Settings(), "height", most=1)
    for bad in (0, 2.5, True, "many"):
        with pytest.raises(InputError, match=r"study.width=.*whole number of at least 1"):
            check_whole(Settings(width=bad), "width")
    for bad in ([], [0], [1, "x"]):
        with pytest.raises(InputError, match=r"study.sizes=.*a list of whole numbers"):
            check_whole(Settings(sizes=bad), "sizes")
    for bad in (0, 2, None, float("nan")):
        with pytest.raises(InputError, match=r"study.height=.*must lie above 0 and at most 1"):
            check_number(Settings(height=bad), "height", most=1)


def test_a_setting_that_may_be_zero() -> None:
    check_number(SimpleNamespace(noises=[0.0, 0.1]), "noises", zero=True)
    with pytest.raises(InputError, match=r"study\.noises=\[-0\.1\] cannot be used; it must be 0 or more\."):
        check_number(SimpleNamespace(noises=[-0.1]), "noises", zero=True)


def test_two_parts_of_a_study_do_not_share_a_file(tmp_path: Path) -> None:
    cells = Cells(tmp_path, say=lambda _: None)
    cells("lr 1", lambda: {"value": 1})
    assert cells("lr 1", lambda: {"value": 2})["value"] == 1
    with pytest.raises(InputError, match=r"'lr 1.npz' and 'lr_1.npz' would share lr_1\.npz"):
        cells("lr_1", lambda: {"value": 2})


def test_what_is_left_is_estimated_by_the_parts_that_were_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def compute() -> dict[str, float]:
        now[0] += 90.0
        return {"value": 1.0}

    Cells(tmp_path, say=lambda _: None)("a", compute)
    cells = Cells(tmp_path, say=said.append)
    cells.total = 4
    for name in "abcd":
        cells(name, compute)
    assert said == [
        "[1/4] a (found)",
        "[2/4] b (90.0 s, about 3.0 min left)",
        "[3/4] c (90.0 s, about 90.0 s left)",
        "[4/4] d (90.0 s)",
    ]
