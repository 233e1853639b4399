"""The page docs/spectra.md runs, from top to bottom, and its table of maps is that of the code."""

from pathlib import Path

import pytest
from pages import run_blocks

from spectrain import spectral_maps

PAGE = (Path(__file__).parents[2] / "docs" / "spectra.md").read_text(encoding="utf-8")


def test_every_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_blocks("spectra.md") >= 6
    assert "all modes are resolved" in capsys.readouterr().out


def test_every_map_is_on_the_page_with_its_formula() -> None:
    for name in spectral_maps.__all__:
        map_ = getattr(spectral_maps, name)
        if not isinstance(map_, type) or map_ is spectral_maps.SpectralMap:
            continue
        assert f"`{name}(" in PAGE
        if name not in ("chain", "clip", "custom"):
            formula = map_.formula.removeprefix("g = ").split(",")[0].split(" for ")[0]
            assert formula in PAGE, f"{name}: {formula}"
