"""The snippet of docs/safety.md runs as written, and its keys exist."""

import re
from pathlib import Path

import torch
import yaml
from pages import run_blocks

from spectrain.models import mlp

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")


def test_every_block_runs() -> None:
    torch.manual_seed(0)
    x = torch.rand(64, 2)
    model = mlp(2, 1, width=16, depth=2)
    y = torch.sin(3 * x[:, :1])
    before = float((model(x) - y).detach().square().mean())
    names = {
        "model": model,
        "x": x,
        "y": y,
        "criterion": torch.nn.functional.mse_loss,
        "optimizer": torch.optim.SGD(model.parameters(), lr=1000.0),
        "steps": 25,
    }
    assert run_blocks("safety.md", names) == 2
    assert float(names["loss"].detach()) < 0.2 * before  # type: ignore[attr-defined]
    assert names["S"].name == "sample"  # type: ignore[attr-defined]


def test_the_defaults_are_those_of_the_configuration() -> None:
    spectrum = yaml.safe_load((ROOT / "conf" / "spectrum" / "default.yaml").read_text())
    for key, value in re.findall(r"`spectrum\.(\w+)=(\S+?)`, the default", PAGE):
        assert str(spectrum[key]) == value
