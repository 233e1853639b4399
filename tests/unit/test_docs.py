"""Every page of docs/: its commands name what exists, its links lead somewhere, and the site's contents list it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pages import DOCS, PAGES, arguments, commands, run_blocks
from torch import nn

from spectrain import SamplePreconditioner, spectral_maps
from spectrain.cli.config_dir import config_dir
from spectrain.cli.overrides import check_overrides

# Their own test modules give their blocks names, and look at what comes out.
WITH_OWN_TEST = {"optimizers.md", "pde.md", "safety.md", "spectra.md", "your_own_loop.md"}
NAMES = [path.relative_to(DOCS).as_posix() for path in PAGES]
PROGRAMS = {"train": "train", "evaluate": "evaluate", "compare": "compare"}
COMMANDS = [(name, words) for name in NAMES for words in commands(name, "make ") if words[1] in PROGRAMS]


@pytest.mark.parametrize("name", sorted(set(NAMES) - WITH_OWN_TEST))
def test_every_block_runs(name: str, tmp_path: Path) -> None:
    """Names that a reader brings along are given small values here; a group of processes has this one."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    x = torch.rand(64, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
    S = SamplePreconditioner(spectral_maps.power(0.5))
    brought = {"x": x, "y": x.prod(1, keepdim=True), "model": model, "S": S, "mine": torch.arange(64)}
    try:
        run_blocks(name, {**brought, "criterion": nn.MSELoss(), "optimizer": torch.optim.Adam(model.parameters())})
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("name", "words"), COMMANDS, ids=lambda value: value if isinstance(value, str) else "")
def test_commands_are_understood(name: str, words: list[str]) -> None:
    given = arguments(words)
    if any(word.startswith(("--config-dir=", "ckpt_path=")) for word in given):
        pytest.skip("needs files; test_docs_how_to.py makes and runs them")
    check_overrides(given, config_dir(), PROGRAMS[words[1]])


def listed(node: Any) -> Iterator[str]:
    for child in node if isinstance(node, list) else node.values() if isinstance(node, dict) else ():
        yield from [child] if isinstance(child, str) else listed(child)


def test_every_page_is_in_the_contents() -> None:
    contents = set(listed(yaml.safe_load((DOCS.parent / "mkdocs.yml").read_text())["nav"]))
    assert contents == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []
