"""The plain forms of docs/your_own_loop.md run, from top to bottom, and no form warns."""

import re
from pathlib import Path

import pytest
from pages import run_blocks

from spectrain.preconditioners import EXTENSIONS, PLACEMENTS
from spectrain.preconditioners.output_modes import OUTPUTS

PAGE = (Path(__file__).parents[2] / "docs" / "your_own_loop.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("error")
def test_every_block_runs() -> None:
    assert run_blocks("your_own_loop.md") == 6


def test_blocks_of_other_frameworks_are_python() -> None:
    blocks = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 4
    for number, block in enumerate(blocks):
        compile(block, f"docs/your_own_loop.md, framework {number + 1}", "exec")


def test_every_choice_is_on_the_page() -> None:
    for word in (*EXTENSIONS, *PLACEMENTS, *OUTPUTS):
        assert f'"{word}"' in PAGE, word
