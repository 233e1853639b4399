"""The commands of docs/pde.md: each runs to its end, with small sizes, the new equation from a file of its own."""

import re
from pathlib import Path

import pytest
from program import call

PAGE = (Path(__file__).parents[2] / "docs" / "pde.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r'^make train ARGS="(.*?)"', PAGE, re.MULTILINE)
SMALL = "data.resolution=9 trainer.max_steps=2 trainer.val_check_interval=1 trainer.accelerator=cpu logger=none"
POINTS = "data.points=20 data.boundary_points=8 model.width=6"


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_runs(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = next(b for b in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "class Advection" in b)
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "advection.py").write_text("import torch\n\n" + block[: block.index("network =")])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    words = line.split()
    outcome = call(*words, *SMALL.split(), *POINTS.split(), "figures=false")
    assert outcome.code == 0, outcome.err
    assert "field.npz" in outcome.out


def test_there_are_commands_of_every_kind() -> None:
    text = " ".join(COMMANDS)
    assert all(word in text for word in ("experiment=pinn_poisson2d", "hard=true", "weights=", "mylab.advection"))
