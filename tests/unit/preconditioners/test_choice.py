"""On or off: by the spectrum, by trials; and the preconditioner that switches."""

import math

import pytest
import torch

from spectrain import AutoPreconditioner, InputError, SamplePreconditioner, Spectrum, spectral_maps
from spectrain.models import mlp
from spectrain.preconditioners import choose_landmarks
from spectrain.preconditioners.choice import PAYS, USELESS, Trial, choose, eigenvalue_ratio, predict


def power_law(beta: float, k: int = 80, noise_floor: float = 0.0) -> Spectrum:
    values = torch.arange(1, k + 1, dtype=torch.float64) ** -beta
    return Spectrum(values, torch.eye(100, k, dtype=torch.float64), torch.zeros(k, dtype=torch.float64), noise_floor)


@pytest.mark.parametrize("k", [2, 8, 64, 80])
def test_the_ratio_of_a_power_law_does_not_depend_on_the_rank(k: int) -> None:
    assert eigenvalue_ratio(power_law(1.5, k)) == pytest.approx(64**1.5)


def test_unresolved_modes_count_as_noise_and_one_mode_is_refused() -> None:
    assert eigenvalue_ratio(power_law(3.0, noise_floor=0.01)) == pytest.approx(100)
    with pytest.raises(InputError, match=r"spectrum\.rank=1"):
        eigenvalue_ratio(power_law(1.0, k=1))


def test_the_prediction() -> None:
    assert [predict(ratio) for ratio in (1.0, USELESS, USELESS + 1, PAYS, math.inf)] == [False, False, None, True, True]


@pytest.mark.parametrize(
    ("decreases", "current", "chosen"),
    [
        ((1.0, 2.0), "none", "sample"),
        ((2.0, 1.0), "sample", "none"),
        ((1.0, 1.05), "none", "none"),  # not clear enough to change
        ((1.05, 1.0), "sample", "sample"),
        ((-1.0, -2.0), "sample", "sample"),  # nothing helped
        ((-1.0, 0.5), "none", "sample"),
        ((1.0, math.nan), "sample", "none"),
    ],
)
def test_trials_decide_by_the_decrease_per_second(decreases: tuple[float, float], current: str, chosen: str) -> None:
    trials = [Trial("none", decreases[0], 1.0), Trial("sample", decreases[1], 1.0)]
    assert choose(trials, current) == chosen


def test_a_slower_way_must_gain_more() -> None:
    assert choose([Trial("none", 1.0, 1.0), Trial("batch", 1.5, 2.0)], "none") == "none"


X = torch.rand(100, 2)


def look(auto: AutoPreconditioner, beta: float) -> None:
    network = mlp(2, 1, width=8, depth=1)
    auto.take(power_law(beta), choose_landmarks(X, 100), network, X)


def beta_of(ratio: float) -> float:
    return math.log(ratio) / math.log(64)


def test_it_starts_on_and_goes_off_when_the_kernel_is_flat_and_on_again() -> None:
    S = SamplePreconditioner(spectral_maps.power(0.5))
    auto = AutoPreconditioner([S])
    assert auto.name == "none" and auto.needs_spectrum
    look(auto, beta_of(6.0))
    assert auto.name == "sample" and S.ready and S.strength == 1.0 and auto.wants_trial
    look(auto, beta_of(2.0))
    assert auto.name == "sample" and auto.is_flat and not auto.wants_trial  # it has been paid for
    look(auto, beta_of(3.0))
    assert auto.name == "none" and S.strength == 0.0 and not auto.needs_spectrum and not auto.wants_trial
    assert "lambda_1/lambda_64 = 3" in auto.reason
    look(auto, beta_of(6.0))
    assert auto.name == "none" and auto.wants_trial  # not clear: it stays off until a trial
    look(auto, beta_of(1000.0))
    assert auto.name == "sample" and not auto.wants_trial and auto.spectral_map == S.spectral_map


def test_one_flat_look_between_others_changes_nothing() -> None:
    auto = AutoPreconditioner([SamplePreconditioner(spectral_maps.power(0.5))])
    for ratio in (90.0, 2.0, 90.0, 2.0):
        look(auto, beta_of(ratio))
        assert auto.name == "sample"


def test_a_first_spectrum_that_is_flat_keeps_it_off() -> None:
    auto = AutoPreconditioner([SamplePreconditioner(spectral_maps.power(0.5))])
    look(auto, beta_of(2.0))
    assert auto.name == "none" and not auto.needs_spectrum


def test_a_trial_holds_until_the_spectrum_is_another() -> None:
    auto = AutoPreconditioner([SamplePreconditioner(spectral_maps.power(0.5))])
    look(auto, beta_of(6.0))
    auto.settle([Trial("none", 2.0, 1.0), Trial("sample", 1.0, 1.0)])
    assert auto.name == "none" and "none 2, sample 1" in auto.reason
    look(auto, beta_of(5.0))
    assert not auto.wants_trial and auto.name == "none"


def test_two_ways_are_tried_even_where_the_spectrum_is_clear() -> None:
    ways = [SamplePreconditioner(spectral_maps.power(alpha)) for alpha in (0.5, 0.9)]
    auto = AutoPreconditioner(ways)
    look(auto, beta_of(1000.0))
    assert auto.wants_trial and auto.name == "sample1" and [S.strength for S in ways] == [1.0, 0.0]
    auto.settle([Trial("none", 1.0, 1.0), Trial("sample1", 2.0, 1.0), Trial("sample2", 3.0, 1.0)])
    assert auto.name == "sample2" and [S.strength for S in ways] == [0.0, 1.0]
    with pytest.raises(InputError, match="candidates is empty"):
        AutoPreconditioner([])


def test_it_acts_as_the_way_in_use() -> None:
    S = SamplePreconditioner(spectral_maps.power(0.5))
    auto, network = AutoPreconditioner([S]), mlp(2, 1, width=8, depth=1)
    c = torch.rand(100, 1)

    def gradient() -> torch.Tensor:
        network.zero_grad()
        (auto.run(network, X) * c).sum().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters()])

    plain = gradient()
    auto.refresh(network, X, rank=16, subset_size=100)
    assert auto.name == "sample"
    assert not torch.allclose(gradient(), plain)
    auto.use("none")
    assert torch.equal(gradient(), plain)


def test_the_decision_is_in_the_state(tmp_path: object) -> None:
    def make() -> AutoPreconditioner:
        return AutoPreconditioner([SamplePreconditioner(spectral_maps.power(0.5))])

    auto = make()
    look(auto, beta_of(6.0))
    auto.settle([Trial("none", 1.0, 1.0), Trial("sample", 2.0, 1.0)])
    auto.strength = 0.75
    path = f"{tmp_path}/state"
    torch.save(auto.state_dict(), path)
    other = make().load_state_dict(torch.load(path, weights_only=True))
    assert (other.name, other.reason, other.looks, other.trials) == (auto.name, auto.reason, auto.looks, auto.trials)
    assert other.candidates["sample"].ready and other.candidates["sample"].strength == 0.75
    look(other, beta_of(5.0))
    assert not other.wants_trial
