"""Every command and every snippet of the README runs, with its sizes cut down."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from program import TINY, call, train

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What cannot be run inside a test: setting up, other tests, publishing, the benchmarks' tables.
NOT_RUN = (
    'make train ARGS="trainer=ddp',
    "git clone",
    "cd ",
    "make test",
    "make lint",
    "make help",
    "make clean",
    "pip install",
    "wandb ",
    "export ",
)
CUT = (*TINY, "spectrum.rank=4", "model.width=8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The lines of the shell blocks, comments and prompts taken off, continued lines joined."""
    text = "\n".join(blocks("(?:bash|sh|shell|console)")).replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ").strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


RUNNABLE = [line for line in dict.fromkeys(commands()) if not line.startswith(NOT_RUN)]


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """A folder with the files that a README talks about: a photograph of one's own and a trained run."""
    from PIL import Image

    Image.new("RGB", (20, 14), (200, 90, 30)).save(tmp_path / "photo.jpg")
    (tmp_path / "clip").mkdir()
    for level in range(0, 250, 50):
        Image.new("RGB", (20, 14), (level, 90, 30)).save(tmp_path / "clip" / f"{level}.png")
    rows = [f"{i},{i % 7},{2 * i + i % 7}.5" for i in range(60)]
    (tmp_path / "houses.csv").write_text("\n".join(["rooms,age,price", *rows]) + "\n")
    train(tmp_path / "runs" / "NAME")
    return tmp_path


def words_of(line: str) -> tuple[str, list[str]]:
    """The program ("train" or "evaluate") and its words; paths of the reader's own become files that exist."""
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        arguments = [w.partition("=")[2] for w in words[2:] if w.startswith("ARGS=")]
        program, rest = words[1], shlex.split(" ".join(arguments))
    else:
        if words[0].startswith("python"):
            words = words[1:]
        program, rest = Path(words[0]).stem.removeprefix("spectrain-"), words[1:]
    return program, [existing(word) for word in rest]


def existing(word: str) -> str:
    key, _, value = word.partition("=")
    if key == "data.path" and not value.startswith("skimage:"):
        return f"data.path={ {'.csv': 'houses.csv', '': 'clip'}.get(Path(value).suffix, 'photo.jpg') }"
    if key == "ckpt_path":
        return f"ckpt_path=runs/NAME/checkpoints/{Path(value).name}"
    return word


@pytest.mark.parametrize("line", RUNNABLE or ["make train"])
def test_commands(line: str, workshop: Path) -> None:
    program, words = words_of(line)
    if program not in ("train", "evaluate"):
        pytest.skip(f"{program} has tests of its own")
    resumes = any(word.startswith("ckpt_path=") for word in words)
    cut = () if program == "evaluate" or resumes else cut_down(words)
    size = [word for word in words if not word.startswith("size=")] if program == "evaluate" else words
    outcome = call(*size, *cut, program=program)
    assert outcome.code == 0, f"{line}\n{outcome.err}"


def cut_down(words: list[str]) -> tuple[str, ...]:
    """Overrides that make a run tiny. A key that the README's own command sets comes last, and wins, where it is
    not a size (Hydra takes the last of two)."""
    if any(word.startswith("experiment=pinn_") for word in words):
        return ("trainer.max_steps=2", "data.points=40", "logger=none", "figures=false")
    if any(word in ("experiment=signal_1d", "experiment=tabular") for word in words):  # they have no pixels
        return tuple(word for word in CUT if not word.startswith("data.size"))
    chosen = {word.partition("=")[0] for word in words}
    sizes = {word.partition("=")[0] for word in TINY if word.partition("=")[2].isdigit()}
    return tuple(word for word in CUT if word.partition("=")[0] in sizes or word.partition("=")[0] not in chosen)


@pytest.mark.parametrize("snippet", blocks("python") or ["pass"])
def test_python_snippets(snippet: str, workshop: Path) -> None:
    """They run as they stand; names that a reader brings along are given small values here."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 2, generator=generator) * 2 - 1
    y = x.prod(1, keepdim=True)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters())
    loader = [(x, y, torch.arange(40))]
    brought: dict[str, Any] = {"x": x, "y": y, "model": model, "network": model, "optimizer": optimizer}
    brought |= {"loader": loader, "criterion": nn.MSELoss(), "torch": torch, "nn": nn, "steps": 3}
    exec(compile(snippet, "README.md", "exec"), brought)


def test_the_two_commands_are_there() -> None:
    lines = commands()
    assert any(line.startswith("make train") for line in lines), "the README shows make train"
    assert any(line.startswith("make test") for line in lines), "the README shows make test"


def test_files_that_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", README)
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing
