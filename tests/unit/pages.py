"""The pages under docs/: their code blocks, run from top to bottom as a reader would."""

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.parent.name != "reference")


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def run_blocks(name: str, names: dict[str, object] | None = None) -> int:
    """Execute every python block of docs/`name` in one namespace; return how many there are."""
    names = {} if names is None else names
    blocks = re.findall(r"```python[^\n]*\n(.*?)```", text_of(name), re.DOTALL)
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"docs/{name}, block {number}", "exec"), names)
    return len(blocks)


def commands(name: str, program: str = "make ") -> list[list[str]]:
    """The words of every command in the page's shell blocks that begins with `program`."""
    text = "\n".join(re.findall(r"```bash\n(.*?)```", text_of(name), re.DOTALL)).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith(program)]


def arguments(words: list[str]) -> list[str]:
    """make train ARGS="a=1 b=2" -> [a=1, b=2]."""
    return [part for word in words if word.startswith("ARGS=") for part in shlex.split(word.removeprefix("ARGS="))]
