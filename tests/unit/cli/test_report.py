"""The page of runs, from folders as runs leave them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from spectrain import plots
from spectrain.cli.report import metrics, write_report
from spectrain.cli.report_runs import differences, read_runs
from spectrain.errors import InputError

CONFIG: dict[str, Any] = {"seed": 0, "model": {"width": 8}, "paths": {"run_dir": "a"}, "note": "<b>bold</b>"}


def folder(place: Path, width: int = 8, *, finished: bool = True, name: str = "psnr") -> Path:
    place.mkdir(parents=True)
    config = {**CONFIG, "model": {"width": width}, "paths": {"run_dir": str(place)}}
    (place / "config.yaml").write_text("# spectrain 0.1.0\n" + yaml.safe_dump(config))
    (place / "metrics.csv").write_text(
        f"step,train/loss,time/seconds,time/cpu_seconds,val/{name}\n0,1,0.0,0.0,1.5\n1,0.5,,,\n2,0.2,2.0,1.0,9.5\n3,0.1,,,\n"
    )
    if finished:
        (place / "history.csv").write_text(f"step,seconds,cpu_seconds,{name},band_0\n0,0,0,1.5,1\n2,2.0,1.0,9.25,0.5\n")
        (place / "summary.json").write_text(json.dumps({name: 9.25, "steps": 2, "seconds": 2.0, "python": "3.11"}))
        (place / "modes.csv").write_text("mode,eigenvalue,mapped_eigenvalue,energy\n1,1.0,0.5,nan\n2,0.1,0.3,0.01\n")
        image = {"target": np.zeros((4, 4, 1)), "reconstruction": np.zeros((4, 4, 1))}
        plots.save_figure(plots.reconstruction_figure(**image), place / "figures" / "reconstruction", image)
    return place


def test_one_page_of_two_runs_with_everything_in_it(tmp_path: Path) -> None:
    runs = [str(folder(tmp_path / "a")), str(folder(tmp_path / "b", width=16))]
    page = write_report(runs, str(tmp_path / "page.html")).read_text(encoding="utf-8")
    assert page.count("<svg") == 2, "a curve and the spectra"
    assert page.count('src="data:image/png;base64,') == 2
    assert "model.width" in page and '<td data-value="9.25">9.25</td>' in page
    # What differs between any two runs is no difference, and text is never markup.
    assert "<td>paths.run_dir</td>" not in page and "<b>bold</b>" not in page
    # Self-contained: nothing is fetched.
    outside = re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    assert outside == [] and "<link" not in page


def test_what_differs(tmp_path: Path) -> None:
    runs = read_runs([str(folder(tmp_path / "a")), str(folder(tmp_path / "b", width=16))])
    assert differences(runs) == [("model.width", [8, 16])]
    assert metrics(runs) == ["psnr"], "any column but the times and the bands"


def test_runs_of_different_tasks_each_show_their_own_metric(tmp_path: Path) -> None:
    runs = [str(folder(tmp_path / "a")), str(folder(tmp_path / "b", name="l2_error"))]
    page = write_report(runs, str(tmp_path / "page.html")).read_text(encoding="utf-8")
    assert "<h3>psnr</h3>" in page and "<h3>l2_error</h3>" in page


def test_a_run_that_was_killed_shows_what_it_has(tmp_path: Path) -> None:
    place = folder(tmp_path / "a", finished=False)
    (run,) = read_runs([str(place)])
    assert [(row["step"], row["cpu_seconds"], row["psnr"]) for row in run.curve] == [(0, 0.0, 1.5), (2, 1.0, 9.5)]
    page = write_report([str(place)])
    assert page == place / "report.html"
    assert "Not finished: a" in page.read_text(encoding="utf-8")


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "x" / "a"), folder(tmp_path / "y" / "a")
    assert [run.name for run in read_runs([str(one), str(two)])] == [str(one), str(two)]


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    place = folder(tmp_path / "a")
    with pytest.raises(InputError, match="it has no config"):
        write_report([str(tmp_path)])
    with pytest.raises(InputError, match="given twice"):
        write_report([str(place), f"{place}/."])
    with pytest.raises(InputError, match="--output"):
        write_report([str(place)], str(tmp_path / "nowhere" / "page.html"))
    (place / "summary.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        write_report([str(place)])
    (place / "config.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(InputError, match="cannot be read"):
        write_report([str(place)])


def test_a_damaged_figure_costs_a_line_only(tmp_path: Path) -> None:
    place = folder(tmp_path / "a")
    whole = (place / "figures" / "reconstruction.png").read_bytes()
    (place / "figures" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (place / "figures" / "empty.png").touch()
    (place / "figures" / "text.gif").write_text("no picture")
    page = write_report([str(place)]).read_text(encoding="utf-8")
    assert page.count("is damaged and left out") == 3 and page.count('src="data:image') == 1


def test_the_curve_of_the_quality_is_shown_once(tmp_path: Path) -> None:
    """Its figure has the metric's name, and the page draws that curve itself."""
    place = folder(tmp_path / "a", name="rmse")
    (place / "figures" / "rmse.png").write_bytes((place / "figures" / "reconstruction.png").read_bytes())
    page = write_report([str(place)]).read_text(encoding="utf-8")
    assert page.count("<h3>rmse") == 1 and "<h3>reconstruction" in page
