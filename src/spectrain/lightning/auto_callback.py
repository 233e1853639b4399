"""The callback that lets a run find out whether S pays: looks when S is off, trials where the spectrum cannot tell."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from spectrain.errors import InputError
from spectrain.lightning.automatic_rate import AutomaticRate
from spectrain.lightning.module import WideNetworkModule
from spectrain.lightning.spectrum_callback import SpectrumCallback
from spectrain.lightning.stopwatch import work_seconds
from spectrain.lightning.tracking import log_scalars
from spectrain.preconditioners import AutoPreconditioner, Preconditioner
from spectrain.preconditioners.choice import FLATTENED, NONE, PAYS, STEADY, Trial, eigenvalue_ratio
from spectrain.preconditioners.refresh import last_due
from spectrain.preconditioners.snapshot import Snapshot

WARMUP_STEPS = 20  # no trial before that, and no end for want of steepness: the kernel still moves
TRIAL_STEPS = 10  # for each of the ways, and at most this share of the run:
TRIAL_SHARE = 1 / 60
# Steps without S, to see the optimizer's metric; only in runs of so many steps, of which they are a small part:
PROBE_STEPS, PROBED_RUN = 5, 200
NEXT_LOOK = 4  # S being off, the next look is at this many times the step of the last one


class AutoCallback(pl.Callback):
    """Looks, tries and says what was decided; nothing to do for any other preconditioner than `AutoPreconditioner`.

    It stands behind SpectrumCallback, whose refreshes are looks as long as S is on. The decision and its grounds are in
    the checkpoint, with the preconditioner: a resumed run does not measure again.
    """

    def __init__(self, spectrum: SpectrumCallback) -> None:
        self._spectrum = spectrum
        self.trial_seconds = 0.0
        self._seen = 0  # looks that were spoken of
        self._name: str | None = None
        self._next_look = 0
        self._decided_at = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Flat looks of the first steps end nothing."""
        if isinstance(pl_module.preconditioner, AutoPreconditioner):
            pl_module.preconditioner.hold = trainer.global_step < WARMUP_STEPS

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Once per optimizer step: a look if one is due, a trial if one is wanted, a line if something was decided."""
        module: WideNetworkModule = pl_module  # type: ignore[assignment]
        auto, step = module.preconditioner, trainer.global_step
        if not isinstance(auto, AutoPreconditioner) or step == self._decided_at:
            return
        self._decided_at = step
        if auto.active is None and step >= self._next_look > 0:
            self._spectrum.refresh_now(trainer, module)
        fresh = self._spectrum.refreshed_at == step
        if step == 0 and auto.active is not None and trainer.max_steps >= PROBED_RUN and has_metric(trainer):
            begun = time.perf_counter()
            ratio = flattened_ratio(trainer, module, auto, batch, self._spectrum)
            if ratio is not None:
                auto.give_up(ratio)
                _tell_guard(module, auto)
            self.trial_seconds += time.perf_counter() - begun
        if auto.wants_trial and fresh and step >= WARMUP_STEPS and can_try(trainer):
            begun = time.perf_counter()
            auto.settle(try_all(trainer, module, auto, batch, self._refresh_share()))
            _tell_guard(module, auto)
            self.trial_seconds += time.perf_counter() - begun
        if auto.active is not None or auto.given_up:
            self._next_look = 0
        elif self._next_look <= step:
            self._next_look = NEXT_LOOK * max(step, self._spectrum.every_n_steps // 2)
        self._say(trainer, auto)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Where the kernel is flat, S goes off when a spectrum falls due: one look less.

        Not at once: FINER lost a decibel where S went off at step 10, and nothing at step 20 (docs/safety.md).
        """
        module: WideNetworkModule = pl_module  # type: ignore[assignment]
        auto, step = module.preconditioner, trainer.global_step
        if not isinstance(auto, AutoPreconditioner):
            return
        auto.hold = step < WARMUP_STEPS
        if auto.active is None or not auto.is_flat:
            return
        due = last_due(step, self._spectrum.every_n_steps) == step > self._spectrum.refreshed_at
        if due and step >= WARMUP_STEPS:
            auto.retire()
            _tell_guard(module, auto)

    def _refresh_share(self) -> float:
        """Seconds of the last refresh that fall on each step until the next."""
        return self._spectrum.refresh_work / self._spectrum.every_n_steps

    def _say(self, trainer: pl.Trainer, auto: AutoPreconditioner) -> None:
        if len(auto.looks) > self._seen or auto.name != self._name:
            values = {
                "preconditioner/eigenvalue_ratio_1_64": auto.looks[-1],
                "preconditioner/on": float(auto.name != NONE),
            }
            log_scalars(trainer, values)
        self._seen = len(auto.looks)
        if auto.name != self._name:
            self._name = auto.name
            what = "off" if auto.name == NONE else f"on ({auto.name})"
            if trainer.is_global_zero:
                print(f"preconditioner: {what} from step {trainer.global_step}; {auto.reason}", flush=True)

    def state_dict(self) -> dict[str, Any]:
        """Primitives."""
        return {name.lstrip("_"): getattr(self, name) for name in _KEPT}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name in _KEPT:
            setattr(self, name, state_dict[name.lstrip("_")])


_KEPT = ("trial_seconds", "_seen", "_name", "_next_look", "_decided_at")


def can_try(trainer: pl.Trainer) -> bool:
    """Not with a gradient scaler (16-mixed), which counts steps, nor with several processes, whose clocks disagree."""
    scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    return not scaled and trainer.world_size == 1 and len(trainer.optimizers) == 1


def has_metric(trainer: pl.Trainer) -> bool:
    """Whether a short run can tell in which metric the optimizer takes its steps: `optimizer_metric`."""
    return can_try(trainer) and all({"betas", "eps"} <= group.keys() for group in trainer.optimizers[0].param_groups)


def flattened_ratio(
    trainer: pl.Trainer, module: WideNetworkModule, auto: AutoPreconditioner, batch: Any, spectrum: SpectrumCallback
) -> float | None:
    """lambda_1/lambda_64 of J D J^T after a few steps without S, if the optimizer flattens a kernel that stays steep.

    None if it does not, or has no metric D. Without S, since D is made of the gradients of the past: where S has
    flattened those, D leaves the kernel steep. The steps are taken back to the bit.
    """
    with torch.random.fork_rng():
        batches = _batches(trainer, module, batch, PROBE_STEPS)
    with _untouched(trainer, module, auto):
        auto.use(NONE)
        _tell_guard(module, auto)
        _try(trainer, module, NONE, batches, 0.0)
        try:
            ratio = eigenvalue_ratio(spectrum.spectrum_now(module, trainer.optimizers[0]))
        except InputError:
            return None
        if ratio > FLATTENED:
            return None
        steady = eigenvalue_ratio(spectrum.spectrum_now(module)) > max(PAYS, STEADY * auto.looks[-1])
    return ratio if steady else None


def try_all(
    trainer: pl.Trainer, module: WideNetworkModule, auto: AutoPreconditioner, batch: Any, refresh_share: float
) -> list[Trial]:
    """A few steps without S and with each candidate, from the present state, on the same batches.

    Everything is put back to the bit: weights, buffers, the optimizer's state, gradients, random numbers, candidates.
    A rate that is measured (``optimizer.lr=auto``) is measured for each of the ways, and again after the choice.
    """
    steps = max(3, min(TRIAL_STEPS, int(TRIAL_SHARE * trainer.max_steps))) if trainer.max_steps > 0 else TRIAL_STEPS
    trials = []
    rate = next((c for c in trainer.callbacks if isinstance(c, AutomaticRate)), None)  # type: ignore[attr-defined]
    with torch.random.fork_rng():
        batches = _batches(trainer, module, batch, steps)
    for name in (NONE, *auto.candidates):
        with _untouched(trainer, module, auto):
            auto.use(name)
            _tell_guard(module, auto)
            if rate is not None:
                rate.measure(trainer, module)
            needs = auto.active is not None and auto.active.needs_spectrum
            # A trial's step is one batch, also where the run accumulates several.
            share = refresh_share / trainer.accumulate_grad_batches if needs else 0.0
            trials.append(_try(trainer, module, name, batches, share))
    return trials


def _tell_guard(module: WideNetworkModule, auto: AutoPreconditioner) -> None:
    if module.guard is not None and auto.spectrum is not None:
        module.guard.take(auto.spectrum)


def _try(trainer: pl.Trainer, module: WideNetworkModule, name: str, batches: list[Any], share: float) -> Trial:
    optimizer: Any = trainer.optimizers[0]
    losses = []

    def evaluate(batch: Any) -> Tensor:
        with trainer.precision_plugin.forward_context():
            loss = module.guarded_loss(batch)
        optimizer.zero_grad()
        loss.backward()
        if trainer.gradient_clip_val is not None:
            module.clip_gradients(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        return loss

    begun = work_seconds(module.device)
    for batch in batches:
        loss: Tensor = optimizer.step(partial(evaluate, batch))  # L-BFGS must have a closure
        losses.append(float(loss.detach()))
    seconds = work_seconds(module.device) - begun + share * len(batches)
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        after = float(module.batch_loss(batches[0]))
    return Trial(name, math.log(losses[0] / after) if after > 0 else math.nan, seconds)


def _batches(trainer: pl.Trainer, module: WideNetworkModule, batch: Any, steps: int) -> list[Any]:
    """The present batch and those that come next; with the full batch the present one again and again."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if getattr(data, "batch_size", 1) is None:
        return [batch] * steps
    following = islice(iter(data.train_dataloader()), 1, steps)
    return [batch, *(trainer.strategy.batch_to_device(each, module.device) for each in following)]


@contextmanager
def _untouched(trainer: pl.Trainer, module: WideNetworkModule, auto: AutoPreconditioner) -> Iterator[None]:
    """Put everything that training changes back at the end."""
    optimizer = trainer.optimizers[0]
    snapshot = Snapshot(module.network, optimizer)
    gradients = [(p, p.grad) for p in module.network.parameters()]
    guard = None if module.guard is None else module.guard.state_dict()
    candidates: list[tuple[Preconditioner, Any]] = [(c, c.state_dict()) for c in auto.candidates.values()]
    name, strength = auto.name, auto.strength
    for p, _ in gradients:
        p.grad = None
    try:
        with torch.random.fork_rng():
            yield
    finally:
        snapshot.restore()
        for p, gradient in gradients:
            p.grad = gradient
        if guard is not None and module.guard is not None:
            module.guard.load_state_dict(guard)
        for candidate, state in candidates:
            candidate.load_state_dict(state)
        auto.strength = strength
        auto.select(name)
