"""The dashboard's panels show what runs log, and W&B's package accepts them."""

import json
import re
import sys
from pathlib import Path

import pytest
import wandb

from spectrain.errors import InputError
from spectrain.lightning.dashboard import SECTIONS, publish, workspace
from spectrain.metrics import ClassMetrics, ImageMetrics, RegressionMetrics, SignalMetrics

ROOT = Path(__file__).parents[3]
PANELS = [panel for panels in SECTIONS.values() for panel in panels]


def test_every_panel_shows_something_that_the_table_of_scalars_has() -> None:
    """docs/dashboards.md lists what is logged; tests/integration/test_tracking.py holds that list to runs."""
    page = (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8")
    logged = set(re.findall(r"`([a-z]+/[a-z0-9_]+)`", page)) | {"trainer/global_step"}
    for panel in PANELS:
        assert panel.x in logged
        for name in panel.names:
            found = (
                [one for one in logged if re.search(name, one)]
                if panel.kind == "pattern"
                else [name] * (name in logged)
            )
            assert found, name


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(InputError, match="pip install 'spectrain"):
        workspace("p", "me")


class Spec:
    """Stands in for a workspace."""

    entity, url, saved = "", "https://somewhere/me/p", False

    def save(self) -> None:
        self.saved = True


def test_publishing_needs_a_server_and_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Spec()
    monkeypatch.setattr("spectrain.lightning.dashboard.workspace", lambda project, entity: spec)
    monkeypatch.setattr("spectrain.lightning.dashboard.unreachable", lambda url: "nobody there")
    with pytest.raises(InputError, match="nobody there"):
        publish("p", "me")
    monkeypatch.setattr("spectrain.lightning.dashboard.unreachable", lambda url: None)
    monkeypatch.setattr(wandb, "login", lambda prompt: False)
    with pytest.raises(InputError, match="wandb login"):
        publish("p", "me")
    assert not spec.saved
    monkeypatch.setattr(wandb, "login", lambda prompt: True)
    assert publish("p", "me") == spec.url and spec.saved and spec.entity == "me"


def test_wandb_s_own_package_takes_the_panels() -> None:
    pytest.importorskip("wandb_workspaces", reason="the optional extra [dashboard]")
    view = json.loads(workspace("p", "me")._to_model().model_dump_json(by_alias=True))
    sections = {
        section["name"]: section["panels"] for section in view["spec"]["section"]["panelBankConfig"]["sections"]
    }
    assert {name: len(panels) for name, panels in SECTIONS.items()} == {n: len(p) for n, p in sections.items()}
    text = json.dumps(view)
    assert all(json.dumps(name)[1:-1] in text for panel in PANELS for name in panel.names)


def test_every_kind_of_data_is_shown() -> None:
    """By its quality, by the metrics that have a best value, and by the figure of the quality."""
    quality, errors = SECTIONS["Quality"][0].names[0], SECTIONS["Quality"][2].names[0]
    figures = next(panel.names for panel in PANELS if panel.title == "Results")
    for measures in (ImageMetrics, SignalMetrics, RegressionMetrics, ClassMetrics):
        for name, higher in measures.directions.items():
            assert bool(re.search(quality, f"val/{name}")) == higher
            assert bool(re.search(errors, f"val/{name}")) != higher
        assert f"figures/{measures.quality.name}" in figures
    for name in ("cross_entropy", "error_f8_15", "l2_error", "fresh_loss", "rmse_train"):
        assert re.search(errors, f"val/{name}")
