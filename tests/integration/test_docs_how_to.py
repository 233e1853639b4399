"""The pages of docs/how_to: the files that they show are written, and their commands run, with small sizes."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from program import TINY, call

HOW_TO = sorted((Path(__file__).parents[2] / "docs" / "how_to").glob("*.md"))


@pytest.mark.parametrize("page", HOW_TO, ids=lambda path: path.stem)
def test_the_page_works(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text(encoding="utf-8")
    for name, content in re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', text, re.DOTALL):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for module in [m for m in sys.modules if m.split(".")[0] == "mylab"]:  # another page's
        monkeypatch.delitem(sys.modules, module)
    commands = re.findall(r'make train ARGS="(.*)"', text)
    assert commands
    for line in commands:
        words = shlex.split(line)
        # A network of one's own has no depth, and data of one's own no size.
        tiny = [w for w in TINY if not (w.startswith("model.depth") and "model=residual" in words)]
        outcome = call(*words, *tiny)
        assert outcome.code == 0, f"{line}\n{outcome.err}"
