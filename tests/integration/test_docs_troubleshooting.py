"""docs/troubleshooting.md: every message on it is what the command above it says."""

import re
import shlex
from pathlib import Path

import pytest
from program import TINY, call

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r'```text\nmake train ARGS="(.*)"\n(error: .*)\n```', PAGE)


def test_there_are_entries() -> None:
    assert len(ENTRIES) == PAGE.count("```text")


@pytest.mark.parametrize(("line", "message"), ENTRIES, ids=[line for line, _ in ENTRIES])
def test_message(line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "something").touch()
    words = shlex.split(line)
    # What is refused before it runs needs no small sizes; a loss that explodes does.
    small = TINY if "optimizer.lr=500" in words else ()
    assert call(*words, *small).error == message
    assert [path.name for path in tmp_path.iterdir()] in (["something"], ["runs", "something"], ["something", "runs"])
