"""The page docs/pde.md: its Python runs from top to bottom, its commands name what exists."""

import re
from pathlib import Path

import pytest
from pages import run_blocks

from spectrain.errors import SpectrainWarning

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pde.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings(f"error::{SpectrainWarning.__module__}.SpectrainWarning")
def test_every_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_blocks("pde.md") >= 3
    error = re.search(r"'l2_error': ([\d.e-]+)", capsys.readouterr().out)
    assert error and float(error[1]) < 1e-4


def test_an_equation_is_short() -> None:
    block = next(b for b in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "class Advection" in b)
    lines = block[block.index("class Advection") : block.index("network =")].splitlines()
    assert len([line for line in lines if line.strip()]) < 30


def test_every_experiment_that_is_named_exists() -> None:
    named = set(re.findall(r"experiment=(pinn_\w+)", PAGE))
    assert named and all((ROOT / "conf" / "experiment" / f"{name}.yaml").exists() for name in named)
