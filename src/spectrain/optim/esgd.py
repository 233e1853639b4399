"""Equilibrated gradient descent: each gradient's entry over the length of its row of the Hessian."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from spectrain.errors import InputError


class ESGD(torch.optim.Optimizer):
    """``d = g / (D + eps)`` with ``D = sqrt(E[(H v)^2])``, v ~ N(0, 1), and Nesterov's momentum on d.

    D_i is the length of row i of the loss's Hessian H (Dauphin et al. 2015, arXiv 1502.04390; for implicit
    representations Chng et al. 2024, arXiv 2402.08784). As in Dauphin's own code the mean over the draws of v forgets
    by `decay`, and a new draw is made every `every_n_steps` steps; besides, at each of the first `every_n_steps`, since
    D of a few draws has entries near zero.

    H v is the difference ``(g(w + h v) - g(w)) / h`` of two gradients of the closure: one evaluation more in such a
    step, and nothing asked of the network. v is drawn from the number of the step alone, the same on all ranks, so that
    a resumed run goes on as it would have.

    BatchNorm's running statistics see w + h v too. Raises InputError for settings out of range, and where `step` has no
    closure.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.01,
        momentum: float = 0.9,
        decay: float = 0.9,
        eps: float = 1e-4,
        every_n_steps: int = 20,
    ) -> None:
        if not (lr >= 0 and 0 <= momentum < 1 and 0 <= decay < 1 and eps > 0 and every_n_steps >= 1):
            raise InputError(
                "optimizer=esgd takes lr >= 0, momentum and decay from 0 to below 1, eps > 0 and every_n_steps >= 1; "
                f"given lr={lr}, momentum={momentum}, decay={decay}, eps={eps}, every_n_steps={every_n_steps}."
            )
        settings = {"momentum": momentum, "decay": decay, "eps": eps, "every_n_steps": every_n_steps}
        super().__init__(params, {"lr": lr, "steps": 0, **settings})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step; the closure's loss at the weights before it."""
        if closure is None:
            raise InputError(
                "ESGD evaluates the loss twice: give step(closure); a gradient scaler (16-mixed) has none."
            )
        evaluate = torch.enable_grad()(closure)
        done, every = self.param_groups[0]["steps"], self.param_groups[0]["every_n_steps"]
        due = done < every or done % every == 0
        devices = {p.device for group in self.param_groups for p in group["params"] if p.device.type == "cuda"}
        with torch.random.fork_rng(devices=list(devices), enabled=due):  # both evaluations draw the same dropout
            ahead, h = self._gradients_ahead(evaluate, done) if due else ({}, 1.0)
        loss = evaluate()  # the last one, so that what is logged and shown is of the weights themselves
        for group in self.param_groups:
            group["steps"] += 1
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, group, (ahead[p] - p.grad) / h if p in ahead else None)
        return loss

    def _gradients_ahead(self, evaluate: Callable[[], Any], number: int) -> tuple[dict[Tensor, Tensor], float]:
        """The gradients at w + h v, and h; the weights are put back."""
        parameters = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        generator = torch.Generator().manual_seed(number)
        before = [p.clone() for p in parameters]
        h = _displacement(parameters)
        for p in parameters:
            p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device), alpha=h)
        try:
            evaluate()
        finally:
            for p, value in zip(parameters, before, strict=True):
                p.copy_(value)
        return {p: p.grad.clone() for p in parameters if p.grad is not None}, h

    def _move(self, p: Tensor, group: dict[str, Any], product: Tensor | None) -> None:
        """One parameter; `product` is its part of H v, where there is a new one."""
        state, decay = self.state[p], group["decay"]
        if not state:
            state |= {"draws": 0, "square": torch.zeros_like(p), "velocity": torch.zeros_like(p)}
        if product is not None:
            state["draws"] += 1
            state["square"].mul_(decay).addcmul_(product, product, value=1 - decay)
        if not state["draws"]:  # its first gradient came between two draws: nothing is known of its rows yet
            return
        D = (state["square"] / (1 - decay ** state["draws"])).sqrt()
        d = p.grad / (D + group["eps"])  # type: ignore[operator]
        state["velocity"].mul_(group["momentum"]).add_(d)
        p.add_(d + group["momentum"] * state["velocity"], alpha=-group["lr"])


def _displacement(parameters: list[Tensor]) -> float:
    """h: the root of the rounding error, of the weights' root mean square."""
    mean_square = sum(float(p.square().sum()) for p in parameters) / sum(p.numel() for p in parameters)
    return float(torch.finfo(parameters[0].dtype).eps ** 0.5 * (mean_square**0.5 or 1.0))
