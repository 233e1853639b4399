"""A guard against steps that S has made too long: it watches the true loss, shrinks S, and takes a bad step back.

Letters: t the strength of S_t = (1 - t) I + t S; s the speed of the guard, 1 / rho <= s <= 1; rho = lambda_1 / max g.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spectrain.errors import InputError
from spectrain.preconditioners.base import Preconditioner
from spectrain.preconditioners.snapshot import Snapshot
from spectrain.spectrum import Spectrum

HARM, GAIN = 0.1, 0.5  # trust ratios below which S shrinks, above which it grows
SHRINK, GROW = 0.5, 1.2
REJECTED = 0.25  # what a rejected step does to the speed
EXPLOSION = 2.0  # a loss this many times the last one is no step but an accident
ADAPTIVE_EXPLOSION = 10.0  # the same for adaptive optimizers, whose loss doubles and comes back in ordinary runs
CHECK_EVERY = 16  # steps between two looks at a minibatch's own loss after its step, a forward pass each


class Guard:
    """Trust region on the strength of a preconditioner, for the loop of any optimizer.

    ::

        guard = Guard(S, model, optimizer)
        for x, y in batches:
            if refresh_is_due:
                guard.take(S.refresh(model, all_x))
            loss = guard.loss(lambda: criterion(S(model(x)), y), x)  # in place of the loss itself
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    After a step its trust ratio is ``(L before - L after) / -<g, dw>``, L the true loss of one batch. With the full
    batch L after is the next step's loss, for free; with minibatches it is one forward pass every `CHECK_EVERY` steps.
    g is the gradient that the optimizer stepped with, J^T S c: for S = I the denominator is the decrease of the
    linearised loss, and for S <= I and a gradient step dw = -eta g it is below it, ``eta |J^T S c|^2 <= eta <J^T c, J^T
    S c>`` mode by mode. So the ratio is lenient, never harsh, and costs no pass through the network.

    A ratio below `HARM` halves the speed s, one above `GAIN` lets it grow by a fifth. The strength is

        t = (rho - 1/s) / (rho - 1),  so that  lambda_max(K S_t) = ((1 - t) rho + t) max g = max g / s,

    and with `rescale` the gradient is multiplied by s. That keeps lambda_max where the learning rate wants it: at the
    rate that suits S, S_t alone is less stable than S.

    A loss that is `EXPLOSION` times the last one, or not finite, rejects the step: weights, buffers and the optimizer's
    state go back to the last snapshot, s to a quarter, and the loss is evaluated anew. Snapshots are made as often as
    costs one copy of the weights per step.

    Adaptive optimizers (Adam, SOAP, Muon: rescale=False) set their own scale, and the ratio of one of their steps says
    little: it is momentum. For them only rejections count, at `ADAPTIVE_EXPLOSION`, and s grows with every step that
    lowers the loss. Nothing is rejected once t is 0: the harm is then the optimizer's own.

    It must see all steps of `optimizer`; each step may evaluate the loss once (not L-BFGS).
    """

    def __init__(
        self, preconditioner: Preconditioner, network: nn.Module, optimizer: Optimizer, *, rescale: bool = True
    ) -> None:
        self.preconditioner, self.rescale = preconditioner, rescale
        self.speed, self.rho = 1.0, 1.0
        self.shrunk_steps = self.rejected_steps = self.steps = 0
        self._explosion = EXPLOSION if rescale else ADAPTIVE_EXPLOSION
        self._network, self._optimizer = network, optimizer
        self._evaluate: Callable[[], Tensor] | None = None
        self._x: Any = None
        self._same = False  # this batch is the one before it
        self._resumed = False
        self._loss = math.nan  # of the last batch, before the step
        self._predicted = math.nan  # decrease by the step; nan: no step was made since
        self._before: list[Tensor] = []  # weights, from the loss to the end of its step
        self._snapshot: Snapshot | None = None
        if optimizer_searches(optimizer):
            raise InputError(
                f"The guard judges steps, and {type(optimizer).__name__} has a line search of its own that does; "
                "leave the guard out (guard=false)."
            )
        optimizer.register_step_post_hook(self._after_step)

    def take(self, spectrum: Spectrum) -> None:
        """Note how much S changes the largest eigenvalue: ``rho = lambda_1 / max_i g_i``."""
        g = spectrum.eigenvalues * spectrum.ratio(self.preconditioner.effective_map)
        self.rho = max(1.0, float(spectrum.eigenvalues[0] / g.max()))
        self._set_speed(self.speed)

    def loss(self, evaluate: Callable[[], Tensor], x: Any = None) -> Tensor:
        """``evaluate()``, the loss of a batch at the present weights, or at earlier ones if the last step was bad.

        `x` tells whether this is the batch of the last step: the same object. The gradient of what comes back is
        multiplied by the speed (with `rescale`).
        """
        loss = evaluate()
        self._same = self._same if self._resumed else x is not None and x is self._x
        self._evaluate, self._x, self._resumed = evaluate, x, False
        if not math.isnan(self._predicted):
            value = float(loss.detach())
            if self._same:
                loss = self._instead(evaluate) if self._judge(value) else loss
            elif not value <= 2 * self._explosion * self._loss:
                loss = self._look(value, evaluate)
        self._loss, self._predicted = float(loss.detach()), math.nan
        self._keep()
        if self.rescale and loss.requires_grad:
            loss.register_hook(lambda gradient: gradient * self.speed)
        return loss

    def _judge(self, value: float) -> bool:
        """Change the speed by what the last step did to the loss of its batch; whether the step was taken back."""
        if not value <= self._explosion * self._loss and self._can_shrink:
            assert self._snapshot is not None
            self._snapshot.restore()
            self._reject()
            return True
        if not self.rescale:
            if value < self._loss:
                self._set_speed(GROW * self.speed)
            return False
        ratio = (self._loss - value) / self._predicted if self._predicted > 0 else math.nan
        if ratio < HARM:
            self.shrunk_steps += 1
            self._set_speed(SHRINK * self.speed)
        elif ratio > GAIN:
            self._set_speed(GROW * self.speed)
        return False

    def _look(self, value: float, evaluate: Callable[[], Tensor]) -> Tensor:
        """The loss of a new batch is suspicious: the step is rejected if this batch was better off at the snapshot."""
        if self._snapshot is None or not self._can_shrink:
            return evaluate()
        now = Snapshot(self._network, self._optimizer)
        self._snapshot.restore()
        loss = self._instead(evaluate)
        if not value <= self._explosion * float(loss.detach()):
            self._reject()
            return loss
        now.restore()
        return self._instead(evaluate)

    def _instead(self, evaluate: Callable[[], Tensor]) -> Tensor:
        self.preconditioner.discard()
        return evaluate()

    @property
    def _can_shrink(self) -> bool:
        return self.rescale or self.speed * self.rho > 1

    def _reject(self) -> None:
        self.rejected_steps += 1
        self._set_speed(REJECTED * self.speed)

    def _set_speed(self, speed: float) -> None:
        self.speed = min(1.0, speed if self.rescale else max(speed, 1 / self.rho))
        if self.rho > 1:
            self.preconditioner.strength = min(1.0, max(0.0, (self.rho - 1 / self.speed) / (self.rho - 1)))

    def _keep(self) -> None:
        """What the step to come starts from. Not in a hook of the step: Lightning evaluates the loss inside of it."""
        if self._before:  # of an earlier part of an accumulated batch
            return
        if self._snapshot is None or self.steps % self._snapshot.interval == 0:
            self._snapshot = Snapshot(self._network, self._optimizer)
        self._before = [p.detach().clone() for p in self._network.parameters()]

    @torch.no_grad()
    def _after_step(self, *_: Any) -> None:
        if not self._before:  # the loss was not evaluated here
            return
        self.steps += 1
        moved = zip(self._network.parameters(), self._before, strict=True)
        terms = [torch.sum(p.grad * (p - before)) for p, before in moved if p.grad is not None]
        self._before = []
        decrease = -float(torch.stack(terms).sum()) if terms else 0.0
        self._predicted = decrease / self.speed if self.rescale else decrease
        if self.rescale and not self._same and self.steps % CHECK_EVERY == 0 and self._evaluate is not None:
            with _undisturbed(self._network):
                value = float(self._evaluate())
            self._judge(value)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives; loads under ``weights_only=True``. To be saved between two steps."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return {**kept, "snapshot": None if self._snapshot is None else self._snapshot.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> Self:
        """Go on where `state_dict` was called; the next batch counts as the last one's if that one did."""
        for name in _KEPT:
            setattr(self, name, state_dict[name])
        if state_dict["snapshot"] is not None:
            self._snapshot = Snapshot(self._network, self._optimizer).load_state_dict(state_dict["snapshot"])
        self._resumed = True
        return self


_KEPT = ("speed", "rho", "shrunk_steps", "rejected_steps", "steps", "_same", "_loss", "_predicted")


def optimizer_searches(optimizer: Optimizer) -> bool:
    """Whether a step needs a closure, to evaluate it many times (L-BFGS)."""
    closure = inspect.signature(getattr(optimizer, "base", optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


@contextmanager
def _undisturbed(network: nn.Module) -> Iterator[None]:
    """One more forward pass that leaves no trace in random numbers and running statistics."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    with torch.random.fork_rng(enabled=True):
        yield
    for buffer, saved in buffers:
        buffer.copy_(saved)
