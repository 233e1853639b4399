"""A preconditioner that switches itself off where it does not pay."""

from collections.abc import Callable, Sequence
from typing import Any, Self

from torch import Tensor, nn
from torch.optim import Optimizer

from spectrain.errors import InputError
from spectrain.preconditioners.base import Preconditioner
from spectrain.preconditioners.choice import NONE, Trial, choose, eigenvalue_ratio, predict
from spectrain.preconditioners.landmarks import Landmarks
from spectrain.spectral_maps import identity
from spectrain.spectrum import Spectrum


class AutoPreconditioner(Preconditioner):
    """One of several ways to precondition, or none, by what the spectrum and trials say.

    Every new spectrum is a look: lambda_1/lambda_64 of `PAYS` or more keeps or switches S on. At `USELESS` or less the
    kernel is flat: S is used for as long as this spectrum would have been, and then goes off, in place of the next look
    (`is_flat`, `retire`) or at it, where it is flat too. In between, and between several ways, what is in use stays
    until somebody makes a trial (`wants_trial`, `settle`), as `spectrain.lightning.AutoCallback` does; in a loop of
    one's own the spectrum alone decides. The first steps are with S, unless the first spectrum is flat already: with S
    they cost a flat network little, without it the others much.

    Args:
        candidates: the ways to choose among, the first one preferred; each with a spectral map of its own.
    """

    def __init__(self, candidates: Sequence[Preconditioner]) -> None:
        if not candidates:
            raise InputError("preconditioner.candidates is empty; give at least one preconditioner to choose.")
        self.candidates = {_name(candidate, candidates): candidate for candidate in candidates}
        self._off = Preconditioner(identity())
        self.name = NONE
        self.reason = "no spectrum yet"
        self.looks: list[float] = []  # lambda_1 / lambda_64 of every spectrum
        self.trials: list[list[list[Any]]] = []  # [name, decrease, seconds] of every way, for each trial
        self.wants_trial = False
        self.hold = False  # whether flat looks leave S on for now
        self.given_up = False  # nothing switches S on again
        self._tried_at: float | None = None  # the ratio of the last trial
        self._given: tuple[Spectrum, Landmarks, nn.Module, Any] | None = None
        super().__init__(candidates[0].spectral_map)
        self.select(NONE)

    @property
    def active(self) -> Preconditioner | None:
        """The way in use; None when S is off."""
        return self.candidates.get(self.name)

    @property
    def in_use(self) -> Preconditioner:
        """The same; the identity when S is off."""
        return self.active or self._off

    @property
    def effective_map(self) -> Callable[[Tensor], Tensor]:
        """Of the way in use."""
        return self.in_use.effective_map

    @property
    def skipped_steps(self) -> int:  # type: ignore[override]
        """Of all candidates."""
        return sum(candidate.skipped_steps for candidate in self.candidates.values())

    @property
    def spectrum(self) -> Spectrum | None:
        """The last one that was looked at, on the landmarks; not in the state."""
        return None if self._given is None else self._given[0]

    @property
    def needs_spectrum(self) -> bool:  # type: ignore[override]
        """Before the first look, and then as the way in use does."""
        return not self.looks or (self.active is not None and self.active.needs_spectrum)

    @property
    def strength(self) -> float:
        """Of the way in use."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = value
        for name, candidate in getattr(self, "candidates", {}).items():
            candidate.strength = value if name == self.name else 0.0

    @property
    def shared(self) -> bool:  # type: ignore[override]
        """Of all candidates."""
        return self._shared

    @shared.setter
    def shared(self, value: bool) -> None:
        self._shared = value
        for candidate in getattr(self, "candidates", {}).values():
            candidate.shared = value

    def select(self, name: str) -> None:
        """Switch to one of the candidates, with what it has, or to "none"."""
        self.name = name
        self.spectral_map = self.in_use.spectral_map
        self.strength = self._strength  # the others' goes to 0

    def use(self, name: str) -> None:
        """`select`, and hand on the last spectrum."""
        self.select(name)
        if self._given is not None:
            self.in_use.take(*self._given)

    def run(self, network: nn.Module, x: Any, index: Tensor | None = None) -> Tensor:
        """As the way in use."""
        return self.in_use.run(network, x, index)

    @property
    def is_flat(self) -> bool:
        """Whether the last look says that S cannot pay."""
        return bool(self.looks) and predict(self.looks[-1]) is False

    def retire(self) -> None:
        """Go off, by what the last look saw."""
        self.reason = f"lambda_1/lambda_64 = {self.looks[-1]:.3g}: the kernel is flat already"
        self.select(NONE)

    def give_up(self, ratio: float) -> None:
        """Go off for good: lambda_1/lambda_64 is `ratio` in the optimizer's metric, without S."""
        self.reason = f"lambda_1/lambda_64 = {ratio:.3g} in the optimizer's metric: it flattens the kernel itself"
        self.given_up, self.wants_trial = True, False
        self.select(NONE)

    def discard(self) -> None:
        """Of the way in use."""
        if self.active is not None:
            self.active.discard()

    def wrap(self, optimizer: Optimizer) -> Optimizer:
        """All candidates' wraps; those that are not in use have strength 0."""
        for candidate in self.candidates.values():
            optimizer = candidate.wrap(optimizer)
        return optimizer

    def take(self, spectrum: Spectrum, landmarks: Landmarks, network: nn.Module, x: Any) -> None:
        """Look at a spectrum, switch on or off where it is clear, and pass the spectrum on."""
        ratio, flat_before = eigenvalue_ratio(spectrum), self.is_flat
        self.looks.append(ratio)
        self._given = (spectrum, landmarks, network, x)
        pays = predict(ratio)
        # A trial holds until the spectrum is another one.
        known = self._tried_at is not None and 0.5 < ratio / self._tried_at < 2
        self.wants_trial = not known and (pays is None or (pays and len(self.candidates) > 1))
        if self.is_flat and (self.active is None or (flat_before and not self.hold)):
            self.retire()
        elif self.active is None and (pays or len(self.looks) == 1):
            self.reason = f"lambda_1/lambda_64 = {ratio:.3g}: the kernel is not flat"
            self.select(next(iter(self.candidates)))
        self.use(self.name)

    def settle(self, trials: Sequence[Trial]) -> None:
        """Take the best of the trials, one of them named "none"."""
        name = choose(trials, self.name)
        rates = ", ".join(f"{trial.name} {trial.rate:.3g}" for trial in trials)
        self.trials.append([[trial.name, trial.decrease, trial.seconds] for trial in trials])
        self.reason = f"lambda_1/lambda_64 = {self.looks[-1]:.3g}, and log-decrease of the loss per second: {rates}"
        self._tried_at, self.wants_trial = self.looks[-1], False
        self.use(name)

    def state_dict(self) -> dict[str, Any]:
        """The choice with its grounds, so that a resumed run repeats the decision and not the measurement."""
        return super().state_dict() | {
            "name": self.name,
            "reason": self.reason,
            "looks": list(self.looks),
            "trials": list(self.trials),
            "wants_trial": self.wants_trial,
            "given_up": self.given_up,
            "tried_at": self._tried_at,
            "candidates": {name: candidate.state_dict() for name, candidate in self.candidates.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> Self:
        """Restore what `state_dict` returned."""
        self.looks, self.trials = list(state_dict["looks"]), list(state_dict["trials"])
        self.reason, self.wants_trial = state_dict["reason"], state_dict["wants_trial"]
        self._tried_at = state_dict["tried_at"]
        self.given_up = state_dict.get("given_up", False)  # not in older checkpoints
        for name, candidate in self.candidates.items():
            candidate.load_state_dict(state_dict["candidates"][name])
        self.select(state_dict["name"])
        return super().load_state_dict(state_dict)


def _name(candidate: Preconditioner, all_of_them: Sequence[Preconditioner]) -> str:
    """sample, batch, parameter; with a number behind it where a way comes more than once."""
    word = type(candidate).__name__.removesuffix("Preconditioner").lower()
    same = [other for other in all_of_them if type(other) is type(candidate)]
    if len(same) == 1:
        return word
    return f"{word}{next(i for i, other in enumerate(same) if other is candidate) + 1}"
