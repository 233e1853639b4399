"""The last outputs of a run and of a study: a disk that is full costs what was written there, a bug stays a bug."""

import errno
import json
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from spectrain.errors import SpectrainWarning
from spectrain.lightning.outputs import Outputs, write_json
from spectrain.lightning.study_report import finish_study
from spectrain.studies import Findings


def test_a_summary_is_json_whatever_its_numbers(tmp_path: Path) -> None:
    Outputs().write_summary(tmp_path, {"a": math.nan, "b": np.float64("inf"), "c": 1.5, "d": None, "e": "x"})
    text = (tmp_path / "summary.json").read_text()
    found = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert found == {"a": None, "b": None, "c": 1.5, "d": None, "e": "x"}
    write_json(tmp_path / "cells.json", {"cells": [{"final": math.nan, "rate": 0.1}], "pair": (1, -math.inf)})
    text = (tmp_path / "cells.json").read_text()
    found = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert found == {"cells": [{"final": None, "rate": 0.1}], "pair": [1, None]}


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_seen_through_the_error_of_closing_the_file() -> None:
    def close() -> None:
        try:
            full()
        finally:
            raise ValueError("closed")

    outputs = Outputs()
    with pytest.warns(SpectrainWarning, match="x could not be written"):
        outputs.write("x", close)
    with pytest.raises(OSError, match="No space"):
        outputs.finish()


def test_a_bug_beside_a_missing_file_is_no_disk_error() -> None:
    def write() -> None:
        try:
            Path("gone").read_text()
        except FileNotFoundError:
            raise KeyError("bug")  # noqa: B904

    with pytest.raises(KeyError, match="bug"):
        Outputs().write("x", write)


def test_a_study_goes_on_when_its_figures_have_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: full())
    findings = Findings({"one": 1.0}, {"f": (Figure, {})}, [("one", "shown")])
    with pytest.warns(SpectrainWarning), pytest.raises(OSError, match="No space"):
        finish_study(tmp_path, findings, [])
    assert json.loads((tmp_path / "summary.json").read_text())["one"] == 1.0
    assert "shown" in capsys.readouterr().out
