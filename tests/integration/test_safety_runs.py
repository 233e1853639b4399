"""Guard, auto and the refresh policies, as a person asks for them on the command line."""

import csv
import json
from pathlib import Path

import pytest
from program import TINY, call, train

MORE = ("trainer.max_steps=24", "trainer.val_check_interval=12")


@pytest.mark.parametrize("policy", ["every", "drift", "budget"])
def test_every_refresh_policy_trains_and_says_what_it_cost(tmp_path: Path, policy: str) -> None:
    summary = train(tmp_path / "r", f"spectrum.refresh={policy}", "spectrum.budget=0.3", *MORE)
    assert 1 <= summary["refreshes"] <= 4  # steps 0, 5, 10, 20
    assert (summary["probes"] > 0) == (policy == "drift")
    assert 0 < summary["refresh_share"] < 1


def test_auto_says_what_it_chose(tmp_path: Path) -> None:
    outcome = call(*TINY, *MORE, "preconditioner=auto", "guard=true", "paths.run_dir=r")
    assert outcome.code == 0, outcome.err
    assert "preconditioner: on (sample) from step 0; lambda_1/lambda_64 = " in outcome.out
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["preconditioner"] == "sample" and "the kernel is not flat" in summary["preconditioner_reason"]
    assert (summary["rejected_steps"], summary["shrunk_steps"], summary["trials"]) == (0, 0, 0)
    assert "guard " in outcome.out and "S " in outcome.out


def test_a_rate_that_explodes_is_taken_back_and_counted(tmp_path: Path) -> None:
    wild = ("optimizer=sgd", "optimizer.lr=300", "optimizer.momentum=0", "optimizer.nesterov=false", *MORE)
    assert call(*TINY, *wild, "paths.run_dir=a").error.startswith("error: The loss is ")
    summary = train(tmp_path / "b", *wild, "guard=true")
    assert summary["rejected_steps"] > 0 and summary["psnr"] > 10
    rows = list(csv.DictReader((tmp_path / "b" / "metrics.csv").open()))
    assert float(rows[-1]["preconditioner/rejected_steps"] or rows[-2]["preconditioner/rejected_steps"]) > 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("spectrum.refresh=often", "spectrum.refresh='often' cannot be used; it must be one of every, drift, budget"),
        ("spectrum.budget=1.5", "spectrum.budget=1.5 cannot be used; it must be a share of the run's time"),
        ("guard=maybe", "guard='maybe' cannot be used; it must be true or false"),
        ("preconditioner.candidates=[]", "preconditioner.candidates is empty"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(override: str, message: str) -> None:
    assert message in call(*TINY, "preconditioner=auto", override).error
