"""Every base optimizer, without a preconditioner and with each side: 50 steps, and resumed bit for bit."""

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import pytorch_optimizer
import torch
from torch import Tensor, nn

from spectrain import InputError, ModifiedSpectrumOptimizer, SamplePreconditioner
from spectrain.models import mlp
from spectrain.optim import ESGD, MuonWithAdam, switch_weights
from spectrain.spectral_maps import power

Make = Callable[[Any], torch.optim.Optimizer]
BASES: dict[str, Make] = {
    "sgd": partial(torch.optim.SGD, lr=0.3),
    "nesterov": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "adam": partial(torch.optim.Adam, lr=0.02),
    "adamw": partial(torch.optim.AdamW, lr=0.02),
    "nadam": partial(torch.optim.NAdam, lr=0.02),
    "adafactor": partial(torch.optim.Adafactor, lr=0.05),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01),
    "muon": partial(MuonWithAdam, lr=0.02),
    "soap": partial(pytorch_optimizer.SOAP, lr=0.02, betas=(0.95, 0.95), precondition_frequency=10, weight_decay=0.0),
    "shampoo": partial(pytorch_optimizer.Shampoo, lr=0.03, preconditioning_compute_steps=10),
    "lion": partial(pytorch_optimizer.Lion, lr=0.003),
    "prodigy": partial(pytorch_optimizer.Prodigy, lr=1.0, d0=1e-3),
    "schedule-free": partial(pytorch_optimizer.ScheduleFreeAdamW, lr=0.02),
    "esgd": partial(ESGD, lr=0.01),
    "lbfgs": partial(torch.optim.LBFGS, lr=0.3, max_iter=2),
    "lbfgs, line search": partial(torch.optim.LBFGS, max_iter=2, line_search_fn="strong_wolfe"),
    "sophia": partial(pytorch_optimizer.SophiaH, lr=1.0),
    "foreach": partial(torch.optim.Adam, lr=0.02, foreach=True),
    "fused": partial(torch.optim.Adam, lr=0.02, fused=True),
}
SIDES = ("none", "sample", "parameter")
STEPS, HALF, REFRESH = 50, 25, (0, 20)
X = torch.linspace(-1, 1, 24)[:, None]
Y = (3 * X).sin() + 0.3 * (9 * X).cos()


class Run:
    """A network, an optimizer and a side; `train` goes from one step to another, `save` and `load` move the state."""

    def __init__(self, base: str, side: str) -> None:
        torch.manual_seed(0)
        self.graph = base == "sophia"  # it differentiates the gradient
        self.model: nn.Module = mlp(1, 1, width=12, depth=2, activation="tanh")
        self.optimizer = BASES[base](self.model.parameters())
        self.S = SamplePreconditioner(power(0.5))
        if side == "parameter":
            self.optimizer = ModifiedSpectrumOptimizer(self.optimizer, power(0.5))
        refreshed: dict[str, Any] = {"none": None, "sample": self.S, "parameter": self.optimizer}
        self.refreshed = refreshed[side]

    def loss(self) -> Tensor:
        return (self.S(self.model(X)) - Y).square().mean()

    def closure(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward(create_graph=self.graph)
        return loss

    def train(self, first: int, last: int) -> "Run":
        for step in range(first, last):
            switch_weights(self.optimizer, "train")
            if step in REFRESH and self.refreshed is not None:
                self.refreshed.refresh(self.model, X, rank=5)
            torch.manual_seed(step)  # Sophia draws
            self.optimizer.step(self.closure)
        return self

    def final(self) -> float:
        switch_weights(self.optimizer, "eval")
        return float(self.loss().detach())

    def save(self) -> io.BytesIO:
        file = io.BytesIO()
        states = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "S": self.S.state_dict()}
        torch.save(states, file)
        file.seek(0)
        return file

    def load(self, file: io.BytesIO) -> "Run":
        states = torch.load(file, weights_only=True)
        self.model.load_state_dict(states["model"])
        self.optimizer.load_state_dict(states["optimizer"])
        self.S.load_state_dict(states["S"])
        return self


QUICK = {("sample", base) for base in ("adam", "soap", "muon", "esgd", "lbfgs", "schedule-free", "sophia")}
CELLS = [
    pytest.param(base, side, marks=() if side == "parameter" or (side, base) in QUICK else pytest.mark.slow)
    for base in BASES
    for side in SIDES
]


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
@pytest.mark.parametrize(("base", "side"), CELLS)
def test_fifty_steps_and_a_resume(base: str, side: str) -> None:
    run = Run(base, side)
    if base == "sophia" and side == "parameter":
        with pytest.raises(InputError, match="create_graph"):
            run.train(0, 1)
        return
    start = run.final()
    half = run.train(0, HALF).save()
    final = run.train(HALF, STEPS).final()
    assert torch.isfinite(torch.tensor(final)) and final < 0.8 * start
    resumed = Run(base, side).load(half).train(HALF, STEPS)
    assert resumed.final() == final
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), resumed.model.parameters(), strict=True))
