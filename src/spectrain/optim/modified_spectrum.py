"""The parameter-side preconditioner as a layer around any torch optimizer."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spectrain.errors import InputError
from spectrain.preconditioners.guest import warn_of_two
from spectrain.preconditioners.parameter_side import ParameterPreconditioner
from spectrain.spectral_maps import SpectralMap
from spectrain.spectrum import Spectrum


class ModifiedSpectrumOptimizer(Optimizer):
    """`base` on the preconditioned gradient P_u g in place of g; the base's own groups and state, shared.

    `step` works with a closure and without one (a gradient scaler calls it without). Gradients are changed in place, as
    clipping does. What clips before `step`, such as Lightning's ``gradient_clip_val``, clips g and not P_u g.
    Parameters without a gradient count as zero. A sparse or sharded gradient is refused.

    An optimizer that must have a closure, L-BFGS, evaluates it many times in one step and compares losses. It works in
    the variables z, ``w = w_0 + P_u^(1/2) z``, in which the gradient of the true loss is P_u^(1/2) g: its line search
    and its curvature pairs are then those of one function. Pairs from before a refresh are forgotten.

    Args:
        base: the optimizer to wrap, made with the parameters to train.
        preconditioner: a `ParameterPreconditioner`, or the spectral map to make one with.

    Raises:
        InputError: `base` is wrapped already.
    """

    def __init__(self, base: Optimizer, preconditioner: ParameterPreconditioner | SpectralMap) -> None:
        if isinstance(base, ModifiedSpectrumOptimizer):
            raise InputError("The optimizer has a modified spectrum already; wrap the base optimizer once.")
        if isinstance(preconditioner, SpectralMap):
            preconditioner = ParameterPreconditioner(preconditioner)
        self.base, self.preconditioner = base, preconditioner
        closure = inspect.signature(base.step).parameters.get("closure")
        self._searches = closure is not None and closure.default is inspect.Parameter.empty
        self._searched_with = preconditioner.version
        super().__init__(base.param_groups, base.defaults)
        self._share()

    def _share(self) -> None:
        self.param_groups, self.state = self.base.param_groups, self.base.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As the base's; new parameters are preconditioned from the next refresh on."""
        if any(param_group is own for own in self.base.param_groups):  # the constructor hands in what is there
            return
        self.base.add_param_group(param_group)
        self._share()

    def refresh(self, model: nn.Module, x: Tensor, **settings: Any) -> Spectrum:
        """New modes at the present weights of `model`: see `Preconditioner.refresh`."""
        return self.preconditioner.refresh(model, x, **settings)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of the base on the preconditioned gradient; returns the closure's loss."""
        if self._searches:
            return self._search(closure)
        if closure is None:
            self._precondition()
            return self.base.step()
        return self.base.step(lambda: self._evaluate(closure))

    def _evaluate(self, closure: Callable[[], Any], *, root: bool = False) -> Any:
        with torch.enable_grad():
            loss = closure()
        self._precondition(root=root)
        return loss

    def _precondition(self, *, root: bool = False) -> None:
        parameters = self._parameters()
        if self.preconditioner.ready and self.preconditioner.strength > 0:
            warn_of_two(parameters)
        self.preconditioner.apply_(parameters, [p.grad for p in parameters], root=root)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def _search(self, closure: Callable[[], Any] | None) -> Any:
        """A step of a base that evaluates the closure many times, in the variables z of ``w = w_0 + P_u^(1/2) z``."""
        if closure is None:
            raise InputError(f"{type(self.base).__name__} needs step(closure); a gradient scaler (16-mixed) has none.")
        if self._searched_with != self.preconditioner.version:
            self.state.clear()
            self._searched_with = self.preconditioner.version
        parameters = self._parameters()
        start = [p.clone() for p in parameters]

        @torch.no_grad()  # the base calls it with gradients on
        def to_weights() -> None:
            z = [p - w for p, w in zip(parameters, start, strict=True)]
            self.preconditioner.apply_(parameters, z, root=True)
            for p, w, part in zip(parameters, start, z, strict=True):
                p.copy_(w + part)

        def evaluate() -> Any:
            scaled = [p.detach().clone() for p in parameters]
            to_weights()
            loss = self._evaluate(closure, root=True)
            with torch.no_grad():
                for p, value in zip(parameters, scaled, strict=True):
                    p.copy_(value)
            return loss

        loss = self.base.step(evaluate)
        to_weights()
        return loss

    def train(self) -> None:
        """The weights to take gradients at, for a base that has two sets of weights (schedule-free)."""
        switch_weights(self.base, "train")

    def eval(self) -> None:
        """The weights to evaluate, for a base that has two sets of weights (schedule-free)."""
        switch_weights(self.base, "eval")

    def consolidate_state_dict(self) -> None:
        """Gather U on rank 0, all ranks together: where it is shared, before each `state_dict`, which only rank 0 has.

        Lightning does so by itself, as with torch's ZeroRedundancyOptimizer, whose method this is.
        """
        self.preconditioner.consolidate(self._parameters())

    def state_dict(self) -> dict[str, Any]:
        """The base's state, and U with its factors under "modified_spectrum"; loads under ``weights_only=True``.

        Raises:
            InputError: U is shared over ranks, and `consolidate_state_dict` was not called.
        """
        own = self.preconditioner.saved(self._parameters()) | {"searched_with": self._searched_with}
        return {**self.base.state_dict(), "modified_spectrum": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the state of the bare base is accepted too, and leaves P_u as it is."""
        own = state_dict.get("modified_spectrum")
        self.base.load_state_dict({name: value for name, value in state_dict.items() if name != "modified_spectrum"})
        self._share()
        if own is not None:
            self.preconditioner.restore(self._parameters(), own)
            self._searched_with = own["searched_with"]


def switch_weights(optimizer: Optimizer, mode: str) -> None:
    """Call ``train()`` or ``eval()`` of an optimizer that has such a method; others have one set of weights."""
    switch = getattr(optimizer, mode, None)
    if callable(switch):
        switch()
