"""`suggest_spectral_map` on targets whose right answer is known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from spectrain.errors import InputError
from spectrain.selection import Pilot, Suggestion, suggest_spectral_map, suggestion
from spectrain.selection.descent import closed_form_errors, held_out_errors, predict_descent, split_folds
from spectrain.selection.words import energy_range
from spectrain.spectral_maps import SpectralMap, flatten, identity, power, ridge
from spectrain.spectrum import Spectrum

T = torch.linspace(-1, 1, 240, dtype=torch.float64)


@pytest.fixture(autouse=True)
def one_draw(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four draws of the folds would take four times as long; test_descent.py holds what several do."""
    if "draws" not in request.node.name:
        monkeypatch.setattr(suggestion, "_draws", lambda n: 1)


def laplace(x: Tensor, z: Tensor) -> Tensor:
    return torch.exp(-2 * (x[:, None] - z).abs())


K = laplace(T, T)


def noisy(y: Tensor, sigma: float) -> Tensor:
    return y + sigma * torch.randn(len(y), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


FINE = torch.sin(60 * T)
SMOOTH = torch.sin(3 * T)


def speeds_apart(g: SpectralMap) -> float:
    """How many times faster the first mode is learned than the 64th: 1 is flat."""
    spectrum = Spectrum.from_kernel(K)
    values = g(spectrum.eigenvalues) * spectrum.eigenvalues
    return float(values[0] / values[63])


def test_fine_detail_without_noise_is_flattened_and_a_noisy_target_less() -> None:
    clean = suggest_spectral_map(K, FINE, steps=10)
    drowned = suggest_spectral_map(K, noisy(SMOOTH, 1.0), steps=10)
    assert speeds_apart(clean.spectral_map) < 1.01
    assert clean.best.predicted_error < 0.1 * clean.plain.predicted_error
    assert speeds_apart(drowned.spectral_map) > 5


def test_more_noise_never_means_more_learning() -> None:
    learned = []
    for sigma in (0.0, 0.3, 1.0):
        s = suggest_spectral_map(K, noisy(FINE, sigma))
        spectrum = Spectrum.from_kernel(K)
        g = s.spectral_map(spectrum.eigenvalues) * spectrum.eigenvalues
        learned.append(float((1 - (1 - g / g.max()) ** s.steps).sum()))
    assert learned[0] > learned[1] > learned[2]


def test_the_ranking_is_that_of_the_measured_errors() -> None:
    y = noisy(torch.sin(25 * T) + SMOOTH, 0.2)
    train = torch.rand(240, generator=torch.Generator().manual_seed(0)) < 0.5
    test = ~train
    s = suggest_spectral_map(K[train][:, train], y[train], steps=1000)
    spectrum = Spectrum.from_kernel(K[train][:, train])
    measured = []
    for c in s.ranking:
        f = predict_descent(spectrum, K[test][:, train], y[train][:, None], [c.spectral_map], [c.steps])
        measured.append(float((f[0, 0, :, 0] - y[test]).square().mean()))
    ranks = torch.tensor(measured).argsort().argsort().double()
    rho = torch.corrcoef(torch.stack([ranks, torch.arange(len(measured), dtype=torch.float64)]))[0, 1]
    assert float(rho) > 0.8
    assert measured[0] < 1.05 * min(measured)
    relative = [c.predicted_error / m for c, m in zip(s.ranking, measured, strict=True)]
    assert 0.5 < relative[0] < 2


def test_ranking_is_sorted_after_the_first_and_confidence_is_a_share() -> None:
    s = suggest_spectral_map(K, noisy(FINE, 0.3))
    errors = [c.predicted_error for c in s.ranking[1:]]
    assert errors == sorted(errors)
    assert s.best.predicted_error <= 1.005 * min(errors)
    assert all(0 <= c.confidence <= 1 for c in s.ranking)
    assert s.best.confidence > 0.5
    assert s.ranking[-1].confidence == 0
    assert s.plain.spectral_map == identity()
    own = {c.steps: c.predicted_error for c in s.ranking if c.spectral_map == identity()}
    assert s.plain.steps == min(t for t, e in own.items() if e <= 1.005 * min(own.values()))


def test_knows_the_noise_and_takes_a_known_one_off() -> None:
    y = noisy(SMOOTH, 0.3)
    estimated = suggest_spectral_map(K, y)
    assert estimated.noise == pytest.approx(0.3, rel=0.15)
    known = suggest_spectral_map(K, y, noise=0.3)
    assert known.noise == 0.3
    assert known.best.predicted_error < 0.3 * estimated.best.predicted_error


def test_a_spectrum_and_its_kernel_get_the_same_answer_and_the_answer_is_reproducible() -> None:
    y = noisy(FINE, 0.3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    from_kernel = suggest_spectral_map(K, y, steps=100)
    assert torch.equal(before, torch.get_rng_state())
    again = suggest_spectral_map(K, y, steps=100)
    from_spectrum = suggest_spectral_map(Spectrum.from_kernel(K), y, steps=100)
    assert again == from_kernel
    assert from_spectrum.spectral_map == from_kernel.spectral_map
    assert from_spectrum.best.predicted_error == pytest.approx(from_kernel.best.predicted_error, rel=1e-6)


def test_a_float32_kernel_is_taken_as_it_is() -> None:
    y = noisy(FINE, 0.3)
    single, double = suggest_spectral_map(K.float(), y, steps=100), suggest_spectral_map(K, y, steps=100)
    assert single.spectral_map == double.spectral_map
    assert single.best.predicted_error == pytest.approx(double.best.predicted_error, rel=1e-4)


def test_numpy_arrays_get_the_answer_of_tensors() -> None:
    y = noisy(FINE, 0.3)
    arrays = suggest_spectral_map(K.numpy()[::-1, ::-1], y.numpy()[::-1], steps=100)  # views that run backwards
    assert arrays == suggest_spectral_map(K.flip(0, 1), y.flip(0), steps=100)


def test_one_predictor_under_several_names_counts_once_under_the_name_with_the_fewest_steps() -> None:
    s = suggest_spectral_map(K[::4, ::4] + 0.1 * torch.eye(60, dtype=torch.float64), FINE[::4])
    assert s.best in s.distinct
    names = {(c.spectral_map, c.steps): c for c in s.ranking}
    twins = [(c, names[c.same_as]) for c in s.ranking if c.same_as is not None]
    assert len(twins) + len(s.distinct) == len(s.ranking)
    # Every map ends in the one interpolant, and flatten(16) is there first.
    soonest = max(c.steps for c in s.distinct if c.spectral_map == flatten(16))
    assert {names[c.spectral_map, 100_000].same_as for c in s.ranking} == {(flatten(16), soonest)}
    for c, first in twins:
        assert first.same_as is None
        assert first.steps <= c.steps or first == s.best
        assert c.predicted_error == pytest.approx(first.predicted_error, rel=1e-2)
    converged = suggest_spectral_map(K[::4, ::4], SMOOTH[::4], maps=[flatten(16), power(0.75, 16)])
    assert str(converged).count(f"the same predictor as {converged.best.spectral_map!r} after") == 2


def test_closed_forms_stand_beside_the_prediction() -> None:
    s = suggest_spectral_map(K, noisy(FINE, 0.3), steps=10, maps=[flatten(16)])
    loo, gcv = closed_form_errors(Spectrum.from_kernel(K), noisy(FINE, 0.3)[:, None], [flatten(16)], [10])
    found = next(c for c in s.ranking if c.spectral_map == flatten(16) and c.steps == 10)
    assert (found.leave_one_out, found.gcv) == pytest.approx((float(loo), float(gcv)))


def test_own_maps_budget_and_thinning() -> None:
    s = suggest_spectral_map(K, FINE, steps=7, maps=[ridge(1e-3)], max_points=100)
    assert {c.spectral_map for c in s.ranking} == {identity(), ridge(1e-3)}
    assert max(c.steps for c in s.ranking) == 7


def test_maps_whose_pilot_diverges_are_left_out_and_named() -> None:
    everything = suggest_spectral_map(K, FINE, steps=10)
    chosen = everything.spectral_map

    def pilot(g: SpectralMap) -> Pilot:
        return Pilot(growth=2.5 if g in (chosen, identity()) else 1.0, pace=1.0)

    piloted = suggest_spectral_map(K, FINE, steps=10, pilot=pilot)
    assert {c.spectral_map for c in everything.ranking} - {c.spectral_map for c in piloted.ranking} == {chosen}
    assert piloted.plain.spectral_map == identity()  # there is nothing weaker to fall back on
    assert f"until its refresh: {chosen!r}" in piloted.reason


def test_a_step_counts_for_what_it_was_worth_in_the_pilot() -> None:
    maps = [power(0.5, 16), flatten(16)]
    slow = suggest_spectral_map(K, FINE, steps=100, maps=maps, pilot=lambda g: Pilot(1.0, 0.1))
    fast = suggest_spectral_map(K, FINE, steps=10, maps=maps)

    def errors(s: Suggestion, steps: int) -> dict[SpectralMap, float]:
        return {c.spectral_map: c.predicted_error for c in s.ranking if c.steps == steps}

    for steps in (1, 3, 10):
        assert errors(slow, 10 * steps) == pytest.approx(errors(fast, steps))


def test_fewer_points_get_more_draws_of_the_folds() -> None:
    assert [suggestion._draws(n) for n in (20, 204, 240, 512, 513, 5000)] == [5, 5, 4, 2, 1, 1]
    few = suggest_spectral_map(K[::4, ::4], noisy(FINE, 0.3)[::4], steps=10, maps=[flatten(4)])
    y = noisy(FINE, 0.3)[::4, None]
    errors, _ = held_out_errors(split_folds(K[::4, ::4], y, draws=5), y, [flatten(4)], [10])
    found = {c.steps: c.predicted_error for c in few.ranking if c.spectral_map == flatten(4)}
    assert found[10] == pytest.approx(float(errors.mean()))


def test_noise_alone_is_left_to_the_kernel_as_it_is() -> None:
    s = suggest_spectral_map(K, noisy(0 * T, 1.0))
    assert s.spectral_map == identity()


def test_several_outputs_share_one_noise() -> None:
    y = torch.stack([noisy(SMOOTH, 0.3), noisy(FINE, 0.3)], 1)
    assert suggest_spectral_map(K, y).noise == pytest.approx(0.3, rel=0.2)
    known = suggest_spectral_map(K, y, noise=0.3).best.predicted_error
    assert known == pytest.approx(suggest_spectral_map(K, y).best.predicted_error - 2 * 0.3**2, rel=0.05)


def test_says_why() -> None:
    s = suggest_spectral_map(K, noisy(SMOOTH, 1.0), steps=100)
    text = str(s)
    assert "80 % of the target's energy sits in modes" in text
    assert "it learns the noise as soon as the signal" in text
    assert "identity()" in text
    # Flattening fewer modes than the suggestion does is worse too, but not because of noise.
    short = suggest_spectral_map(K, FINE, steps=10, maps=[flatten(4), power(0.75, 64)])
    assert short.spectral_map == power(0.75, 64)
    assert "noise as soon" not in short.reason
    values = torch.arange(6, 0, -1, dtype=torch.float64)
    spectrum = Spectrum.from_kernel(torch.diag(values))
    assert energy_range(spectrum, torch.tensor([[0.0], [0.0], [1.0], [-1.0], [0.0], [0.0]])) == (3, 4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((K[:10, :10], FINE[:10]), "too few"),
        ((K[:, :100], FINE), "kernel has shape"),
        ((K + torch.tril(K, -1), FINE), "not symmetric"),
        ((K * math.nan, FINE), "not finite"),
        ((K, FINE[:100]), "y has shape"),
        ((K, FINE * math.nan), "finite"),
        ((K.numpy(), FINE.numpy()[:100]), "y has shape"),
        ((K, np.array(["a"] * len(K))), "y is no array of numbers"),
        ((K, FINE, -1.0), "noise=-1"),
        ((K, FINE, None, 0), "steps=0"),
    ],
)
def test_bad_input_is_refused(arguments: tuple, said: str) -> None:
    with pytest.raises(InputError, match=said):
        suggest_spectral_map(*arguments)


def test_too_few_points_after_thinning_are_too_few() -> None:
    with pytest.raises(InputError, match="max_points=5 is too few"):
        suggest_spectral_map(K, FINE, max_points=5)
