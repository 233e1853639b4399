"""Refresh policies, guard and preconditioner=auto under a real Trainer, on a small picture."""

import csv
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from test_training import Run, StopAt, equal

from spectrain import AutoPreconditioner, InputError, SamplePreconditioner, spectral_maps
from spectrain.lightning import AutoCallback, AutomaticRate, SpectrumCallback
from spectrain.lightning import auto_callback as auto_module
from spectrain.lightning import automatic_rate as rate_module
from spectrain.preconditioners import Landmarks, choice
from spectrain.preconditioners.choice import Trial


def policy(run: Run, name: str, budget: float = 0.1) -> Run:
    run.spectrum.policy, run.spectrum.budget = name, budget
    return run


def refreshed_at(run: Run) -> list[int]:
    """The steps of a run's refreshes."""
    steps, working = [], run.spectrum.refresh

    def refresh(trainer: pl.Trainer, module: pl.LightningModule) -> bool:
        steps.append(trainer.global_step)
        return working(trainer, module)

    run.spectrum.refresh = refresh  # type: ignore[method-assign]
    run.fit()
    return steps


def test_drift_refreshes_only_where_the_kernel_has_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {4: 0.2, 8: 3.0, 12: 0.1, 16: float("inf")}
    monkeypatch.setattr("spectrain.lightning.spectrum_callback.kernel_change", lambda *_, seed: changes[seed])
    run = policy(Run(tmp_path, steps=18), "drift")
    assert refreshed_at(run) == [0, 8, 16]
    assert run.spectrum.probes == 4
    rows = {row["step"]: row["spectrum/change"] for row in csv.DictReader((tmp_path / "metrics.csv").open())}
    assert [rows[str(step)] for step in changes] == ["0.2", "3.0", "0.1", "inf"]


def on_a_clock(folder: Path, monkeypatch: pytest.MonkeyPatch, budget: float, **options: Any) -> Run:
    """A run in which a refresh takes 3 s and a step 1 s."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    working = Landmarks.spectrum

    def dear(*args: Any, **options: Any) -> Any:
        now[0] += 3
        return working(*args, **options)

    def tick(_: Any) -> None:
        now[0] += 1

    monkeypatch.setattr(Landmarks, "spectrum", dear)
    every_step = StopAt(0, tick)
    every_step.on_train_batch_end = lambda *_: tick(None)  # type: ignore[method-assign,assignment]
    return policy(Run(folder, val_check_interval=1000, extra=(every_step,), **options), "budget", budget)


def test_budget_waits_until_a_refresh_fits_into_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = on_a_clock(tmp_path, monkeypatch, 1 / 3, steps=31, every=4)
    # Spent and next must be within a third of the clock: 6 s of 18 at step 15, 9 of 27 at 21, 12 of 36 at 27.
    assert refreshed_at(run) == [0, 15, 21, 27]
    assert run.spectrum.share == pytest.approx(12 / 43)


def test_budget_lets_the_first_refreshes_come_early_if_the_whole_run_can_pay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At step 5 of 12: 6 s of the 12 that the steps will take. At step 8 there are 9 s of 14.
    assert refreshed_at(on_a_clock(tmp_path, monkeypatch, 0.5, steps=12, every=8)) == [0, 5]


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(InputError, match=r"spectrum.refresh='often' is not known; allowed: every, drift, budget"):
        SpectrumCallback(refresh="often")


def auto_run(folder: Path, *, guard: bool = False, extra: tuple[pl.Callback, ...] = (), **options: Any) -> Run:
    run = Run(folder, **options)
    run.module.preconditioner = AutoPreconditioner([SamplePreconditioner(spectral_maps.power(0.5))])
    run.module._guarded, run.module._scale_free = guard, True
    run.auto = AutoCallback(run.spectrum)  # type: ignore[attr-defined]
    callbacks = run.trainer.callbacks
    callbacks.insert(callbacks.index(run.spectrum) + 1, run.auto)  # type: ignore[attr-defined]
    callbacks[-2:-2] = extra
    return run


def ratios(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """What the next looks will see; the last value for all others."""
    left = list(values)
    monkeypatch.setattr(
        "spectrain.preconditioners.auto.eigenvalue_ratio", lambda _: left.pop(0) if len(left) > 1 else left[0]
    )


def test_a_flat_kernel_switches_it_off_and_looks_become_rare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ratios(monkeypatch, 90.0, 90.0, 2.0, 2.0, 1.5)
    run = auto_run(tmp_path, steps=90, every=5, val_check_interval=200)
    assert refreshed_at(run) == [0, 5, 10, 15, 80]  # on; flat at 10 and 15, off in place of a look at 20; one look
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("preconditioner:")]
    assert len(lines) == 2
    assert lines[0].startswith("preconditioner: on (sample) from step 0; lambda_1/lambda_64 = 90")
    assert lines[1].startswith("preconditioner: off from step 20; lambda_1/lambda_64 = 2")
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["preconditioner/on"] for row in rows if row["preconditioner/on"]] == ["1.0"] * 4 + ["0.0"] * 2


def test_a_kernel_that_flattens_itself_is_looked_at_three_times_in_forty_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a short run on SIREN pays: no trial, S until step 20 (FINER needs it until there), and no fourth look."""
    ratios(monkeypatch, 90.0, 7.0, 3.0)
    on: list[bool] = []

    def note(module: Any) -> None:
        on.append(module.preconditioner.active is not None)

    every_step = StopAt(0, note)
    every_step.on_train_batch_end = lambda trainer, module, *_: note(module)  # type: ignore[method-assign,assignment]
    run = auto_run(tmp_path, steps=42, every=20, val_check_interval=50, guard=True, extra=(every_step,))
    assert refreshed_at(run) == [0, 5, 10]
    assert on.index(False) == 19 and not any(on[19:]), "after the step with number 19"
    assert run.module.preconditioner.trials == [] and run.module.guard.rho == 1


@pytest.mark.parametrize("stop", [19, 20])
def test_a_resumed_run_goes_off_where_an_uninterrupted_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    ratios(monkeypatch, *(90.0, 90.0, 3.0) * 2)
    options: dict[str, Any] = {"steps": 24, "guard": True, "every": 10, "val_check_interval": 10}
    whole = auto_run(tmp_path / "whole", **options).fit()
    press = StopAt(stop, lambda _: signal.raise_signal(signal.SIGINT))
    auto_run(tmp_path / "part", extra=(press,), **options).fit()
    resumed = auto_run(tmp_path / "part", **options).fit(tmp_path / "part" / "checkpoints" / "last.ckpt")
    assert whole.module.preconditioner.name == resumed.module.preconditioner.name == "none"
    assert whole.module.preconditioner.looks == resumed.module.preconditioner.looks == [90.0, 90.0, 3.0]
    assert equal(whole.weights, resumed.weights)


def test_with_a_clear_spectrum_auto_is_the_way_itself_bit_for_bit(tmp_path: Path) -> None:
    plain, auto = Run(tmp_path / "a", steps=25), auto_run(tmp_path / "b", steps=25).fit()
    plain.module._scale_free = True
    plain.fit()
    assert min(auto.module.preconditioner.looks) > choice.PAYS
    assert equal(plain.weights, auto.weights)


@pytest.mark.parametrize("batch_size", [None, 50])
def test_a_trial_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int | None) -> None:
    """Dropout, batch norm, Adam: a run with a trial whose outcome is 'as before' equals one without."""
    layers = (torch.nn.Linear(2, 16), torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.1), torch.nn.ReLU())

    def network() -> torch.nn.Module:
        torch.manual_seed(3)
        return torch.nn.Sequential(*layers[:1], torch.nn.BatchNorm1d(16), *layers[2:], torch.nn.Linear(16, 1))

    def run(folder: str) -> Run:
        with torch.no_grad():
            layers[0].weight.fill_(0.3)
            layers[0].bias.copy_(torch.linspace(-1, 1, 16))
        return auto_run(
            tmp_path / folder, steps=24, batch_size=batch_size, guard=True, network=network(), every=10
        ).fit()

    tried: list[list[Trial]] = []
    working = auto_module.try_all

    def as_before(*args: Any) -> list[Trial]:
        tried.append(working(*args))
        return [Trial("none", 0.0, 1.0), Trial("sample", 1.0, 1.0)]

    ratios(monkeypatch, 6.0)
    monkeypatch.setattr(auto_module, "try_all", as_before)
    with_trial = run("a")
    monkeypatch.setattr(auto_module, "try_all", lambda *_: [Trial("none", 0.0, 1.0), Trial("sample", 1.0, 1.0)])
    without = run("b")
    assert [trial.name for trial in tried[0]] == ["none", "sample"]
    assert all(trial.seconds > 0 and trial.decrease == trial.decrease for trial in tried[0])
    assert tried[0][0].decrease != tried[0][1].decrease
    assert equal(with_trial.weights, without.weights)
    for a, b in zip(with_trial.network.buffers(), without.network.buffers(), strict=True):
        assert torch.equal(a, b)
    assert with_trial.history.loss == without.history.loss


@pytest.mark.parametrize("stop", [3, 21, 27])
def test_a_resumed_run_repeats_the_decision_and_not_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    made = []

    def trials(*_: Any) -> list[Trial]:
        made.append(1)
        return [Trial("none", 2.0, 1.0), Trial("sample", 1.0, 1.0)]

    monkeypatch.setattr(auto_module, "try_all", trials)
    monkeypatch.setattr("spectrain.preconditioners.auto.eigenvalue_ratio", lambda _: 6.0)
    options: dict[str, Any] = {"steps": 32, "guard": True, "every": 10, "val_check_interval": 10}
    whole = auto_run(tmp_path / "whole", **options).fit()
    assert whole.module.preconditioner.name == "none"
    made.clear()
    press = StopAt(stop, lambda _: signal.raise_signal(signal.SIGINT))
    auto_run(tmp_path / "part", extra=(press,), **options).fit()
    resumed = auto_run(tmp_path / "part", **options).fit(tmp_path / "part" / "checkpoints" / "last.ckpt")
    assert made == [1]
    assert equal(whole.weights, resumed.weights)
    assert resumed.module.preconditioner.name == "none"
    assert whole.module.preconditioner.looks == resumed.module.preconditioner.looks
    assert whole.module.guard.speed == resumed.module.guard.speed


def test_a_trial_of_an_optimizer_that_needs_a_closure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ratios(monkeypatch, 6.0)
    run = auto_run(tmp_path, steps=22, every=10, val_check_interval=30, optimizer=torch.optim.LBFGS)
    run.module._scale_free = False
    run.fit()
    (trial,) = run.module.preconditioner.trials
    assert [name for name, *_ in trial] == ["none", "sample"]


def flattened(monkeypatch: pytest.MonkeyPatch, value: float | None) -> list[int]:
    """What the steps without S will find; the list gets an entry for each time it was asked."""
    asked: list[int] = []

    def found(*_: Any) -> float | None:
        asked.append(1)
        return value

    monkeypatch.setattr(auto_module, "flattened_ratio", found)
    monkeypatch.setattr(auto_module, "PROBED_RUN", 30)
    return asked


@pytest.mark.parametrize(("ratio", "name"), [(2.4, "none"), (None, "sample")])
def test_where_the_optimizer_flattens_the_kernel_itself_S_is_off_for_good(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ratio: float | None,
    name: str,
) -> None:
    ratios(monkeypatch, 90.0)  # which says on
    asked = flattened(monkeypatch, ratio)
    run = auto_run(tmp_path, steps=30, every=10, val_check_interval=300, guard=True)
    steps = refreshed_at(run)
    assert asked == [1] and run.module.preconditioner.name == name
    assert steps == ([0] if name == "none" else [0, 5, 10, 20])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("preconditioner:"))
    off = "off from step 0; lambda_1/lambda_64 = 2.4 in the optimizer's metric: it flattens the kernel itself"
    assert (line == f"preconditioner: {off}") == (name == "none")


def test_short_runs_and_optimizers_without_a_metric_are_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratios(monkeypatch, 90.0)
    asked = flattened(monkeypatch, 1.0)
    auto_run(tmp_path / "short", steps=29, every=20, val_check_interval=300).fit()
    auto_run(tmp_path / "sgd", steps=30, every=20, val_check_interval=300, optimizer=torch.optim.SGD).fit()
    assert asked == []


@pytest.mark.parametrize("batch_size", [None, 50])
def test_the_steps_without_S_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int | None
) -> None:
    """Their ratio is that of five steps of a run without S, and the run is the same to the bit."""
    found: list[float | None] = []
    working = auto_module.flattened_ratio

    def noted(*args: Any) -> float | None:
        found.append(working(*args))
        return None

    options: dict[str, Any] = {"steps": 30, "every": 15, "batch_size": batch_size, "val_check_interval": 300}
    monkeypatch.setattr(auto_module, "PROBED_RUN", 30)
    monkeypatch.setattr(auto_module, "FLATTENED", 1e9)
    monkeypatch.setattr(auto_module, "STEADY", 0.0)
    monkeypatch.setattr(auto_module, "flattened_ratio", noted)
    asked = auto_run(tmp_path / "a", **options).fit()
    monkeypatch.setattr(auto_module, "flattened_ratio", lambda *_: None)
    other = auto_run(tmp_path / "b", **options).fit()
    assert equal(asked.weights, other.weights)
    plain = Run(tmp_path / "c", precondition=False, steps=5, batch_size=batch_size)
    plain.module._schedule, plain.module._scale_free = None, True  # the rate of the first step throughout
    plain.fit()
    seen = choice.eigenvalue_ratio(plain.spectrum.spectrum_now(plain.module, plain.trainer.optimizers[0]))
    assert found[0] == pytest.approx(seen, rel=1e-3)


@pytest.mark.parametrize(
    ("metric", "plain", "found"), [(2.9, 80.0, 2.9), (3.1, 80.0, None), (2.9, 60.0, None), (2.9, 7.0, None)]
)
def test_a_kernel_that_training_flattens_is_not_the_optimizers_doing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: float, plain: float, found: float | None
) -> None:
    """SIREN's and FINER's: S pays in their first steps."""
    ratios(monkeypatch, 90.0 if plain > 8 else 9.0)
    monkeypatch.setattr(auto_module, "PROBED_RUN", 30)
    seen: list[float | None] = []
    working = auto_module.flattened_ratio
    monkeypatch.setattr(auto_module, "flattened_ratio", lambda *args: seen.append(working(*args)))
    monkeypatch.setattr(SpectrumCallback, "spectrum_now", lambda self, module, optimizer=None: optimizer)
    monkeypatch.setattr(auto_module, "eigenvalue_ratio", lambda optimizer: metric if optimizer else plain)
    auto_run(tmp_path, steps=30, every=20, val_check_interval=300).fit()
    assert seen == [found]


@pytest.mark.parametrize("stop", [3, 20])
def test_a_resumed_run_does_not_ask_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    ratios(monkeypatch, 90.0)
    asked = flattened(monkeypatch, 2.0)
    options: dict[str, Any] = {"steps": 30, "every": 10, "val_check_interval": 300}
    whole = auto_run(tmp_path / "whole", **options).fit()
    press = StopAt(stop, lambda _: signal.raise_signal(signal.SIGINT))
    auto_run(tmp_path / "part", extra=(press,), **options).fit()
    resumed = auto_run(tmp_path / "part", **options).fit(tmp_path / "part" / "checkpoints" / "last.ckpt")
    assert asked == [1, 1] and resumed.module.preconditioner.given_up
    assert resumed.module.preconditioner.name == whole.module.preconditioner.name == "none"
    assert equal(whole.weights, resumed.weights)


def with_rate(run: Run) -> AutomaticRate:
    rate, callbacks = AutomaticRate(run.spectrum), run.trainer.callbacks
    callbacks.insert(callbacks.index(run.auto) + 1, rate)  # type: ignore[attr-defined]
    run.module._scale_free = False
    return rate


@pytest.mark.parametrize("winner", ["none", "sample"])
def test_a_measured_rate_follows_what_auto_has_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, winner: str
) -> None:
    """S allows a rate that diverges without it: each way is tried, and used, at its own."""
    rates = {"none": 1.0, "sample": 100.0}
    seen: list[str] = []

    def measured(*args: Any, **_: Any) -> tuple[float, torch.Tensor]:
        seen.append(args[3].name)
        return rates[args[3].name] / 20, torch.ones(1)

    monkeypatch.setattr(rate_module, "measure_rate", measured)
    ratios(monkeypatch, 6.0)
    working = auto_module.try_all

    def try_all(*args: Any) -> list[Trial]:
        return [replace(trial, decrease=float(trial.name == winner)) for trial in working(*args)]

    monkeypatch.setattr(auto_module, "try_all", try_all)
    run = auto_run(tmp_path, steps=24, every=10, val_check_interval=50, optimizer=torch.optim.SGD)
    rate = with_rate(run)
    run.fit()
    assert seen == ["sample", "sample", "sample", "none", "sample", winner]  # steps 0, 5, 10; the trial; step 20
    assert rate.rate == rates[winner] / 20


def test_a_measured_rate_is_that_of_the_whole_S_whatever_the_guard_has_left_of_it(tmp_path: Path) -> None:
    """The guard multiplies the gradient by its speed already."""

    def rate(speed: float) -> float | None:
        run = auto_run(tmp_path, steps=1, guard=True, val_check_interval=50, optimizer=torch.optim.SGD)
        automatic = with_rate(run)
        slow = StopAt(0, None)
        slow.on_train_batch_start = lambda *_: run.module.guard._set_speed(speed)  # type: ignore[method-assign,assignment]
        run.trainer.callbacks.insert(run.trainer.callbacks.index(automatic), slow)
        run.fit()
        assert (run.module.guard.preconditioner.strength < 1) == (speed < 1)
        return automatic.rate

    assert rate(0.5) == rate(1.0)
