"""The page docs/optimizers.md runs, from top to bottom, and names every optimizer that has a file."""

import re
from pathlib import Path

import pytest
from pages import run_blocks

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "optimizers.md").read_text(encoding="utf-8")


def test_every_block_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_blocks("optimizers.md", {"path": tmp_path / "optimizer.pt"}) == 6
    losses = [float(text) for text in re.findall(r"(?:side|BFGS): (\S+)", capsys.readouterr().out)]
    assert len(losses) == 2 and losses[1] < losses[0] < 0.1


def test_every_file_is_on_the_page() -> None:
    for path in (ROOT / "conf" / "optimizer").glob("*.yaml"):
        assert f"`{path.stem}`" in PAGE
