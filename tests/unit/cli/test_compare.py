"""A race from its configuration to its page; the cells' training is replaced by curves, except in the slow test."""

import csv
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from spectrain import InputError
from spectrain.cli import race_cells
from spectrain.cli.compare import _contest, compare
from spectrain.cli.config_dir import config_dir
from spectrain.cli.race_cells import Cell, run_cell

SMALL = (
    "tasks=[camera_64]",
    "methods=[soap,soap_S]",
    "seeds=[0,1]",
    "rates=[1,2]",
    "budget=3",
    "calibration_steps=10",
    "batch_sizes=[own]",
)


def configure(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("compare", list(overrides))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The overrides of every training so far; a step takes .1 s, with S .2 s, and S gives 10 or 11 dB more."""
    calls: list[list[str]] = []

    def program(words: list[str], log: Path) -> int:
        calls.append(words)
        given = dict(word.split("=", 1) for word in words)
        hot, small = given["optimizer.lr"] == "0.02", given.get("data.batch_size") == "100"
        if (hot and given["preconditioner"] == "sample" and given["seed"] == "1") or given["optimizer"] == "muon":
            log.write_text("step 1\nwarning: hot\nerror: The loss is nan.\n")
            return 2
        S = given["preconditioner"] == "sample"
        folder = Path(given["paths.run_dir"].strip("'"))
        (folder / "figures").mkdir(parents=True)
        steps = int(given["trainer.max_steps"])
        with (folder / "history.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "seconds", "cpu_seconds", "psnr"])
            for step in (0, steps // 3, steps):
                seconds = 0.5 + step * (0.2 if S else 0.1) * (0.5 if small else 1)
                writer.writerow([step, 0, seconds, step + (10 + hot) * S - (30 if S and small else 0)])
        picture = np.zeros((4, 4, 1))
        np.savez(folder / "figures" / "reconstruction.npz", target=picture, reconstruction=picture)
        (folder / "summary.json").write_text("{}")
        return 0

    monkeypatch.setattr(race_cells, "train_apart", program)
    return calls


def test_every_cell_gets_the_same_time(trained: list[list[str]], tmp_path: Path) -> None:
    table = compare(configure(*SMALL, f"output_dir={tmp_path}"))
    assert [(s.method, s.steps) for s in table] == [("soap", 25), ("soap_S", 12)]  # (3 - .5) / .1 and / .2
    short = [word for words in trained[:3] for word in words if word.startswith("trainer.max_steps=")]
    assert short == [f"trainer.max_steps={n}" for n in (4, 20, 4)], "20 steps with S are more than the budget holds"
    assert len(trained) == 3 + 2 * 2 + 2, "short runs, trials with the first seed, the best ones with the other"
    rates = [word for words in trained for word in words if word.startswith("optimizer.lr=")]
    assert {*rates} == {"optimizer.lr=0.01", "optimizer.lr=0.02"}
    methods = ["sample" if "preconditioner=sample" in words else "none" for words in trained[3:]]
    assert methods == ["none", "sample"] * 3, "methods take turns"


def test_the_best_trial_of_the_first_seed_is_made_with_the_others(trained: list[list[str]], tmp_path: Path) -> None:
    """The program gives more with S at twice the rate."""
    compare(configure(*SMALL, "seeds=[0,2,3]", f"output_dir={tmp_path}"))
    words = [dict(word.split("=", 1) for word in words) for words in trained[7:]]
    assert [(w["seed"], w["preconditioner"], w["optimizer.lr"]) for w in words] == [
        (seed, side, rate) for seed in "23" for side, rate in (("none", "0.01"), ("sample", "0.02"))
    ]


def test_a_finished_cell_is_not_run_again(trained: list[list[str]], tmp_path: Path) -> None:
    first = compare(configure(*SMALL, f"output_dir={tmp_path}"))
    done = len(trained)
    assert compare(configure(*SMALL, f"output_dir={tmp_path}")) == first
    assert len(trained) == done
    compare(configure(*SMALL, "seeds=[0,1,2]", f"output_dir={tmp_path}"))
    assert len(trained) == done + 2


def test_what_is_written(trained: list[list[str]], tmp_path: Path) -> None:
    compare(configure(*SMALL, f"output_dir={tmp_path}"))
    found = json.loads((tmp_path / "results.json").read_text())
    assert [s["failed"] for s in found["standings"]] == [0, 1]
    failed = [cell for cell in found["cells"] if cell["error"]]
    assert [cell["error"] for cell in failed] == ["The loss is nan."]
    assert all(cell["command"].startswith('OMP_NUM_THREADS=1 make train ARGS="') for cell in found["cells"])
    with (tmp_path / "results.csv").open() as file:
        assert {row["method"] for row in csv.DictReader(file)} == {"soap", "soap_S"}
    page = (tmp_path / "index.html").read_text()
    assert "camera_64" in page and "<svg" in page and "The loss is nan." in page
    assert "Failed:<br>soap_S, seed 1, rate 0.02, batch own: The loss is nan." in page
    assert "25 – 25" not in page and "failed – 23" in page
    links = re.findall(r'(?:src|href)="(?!#|data:)([^"]*)"', page)
    assert links == [], "the page opens offline"
    figures = re.findall(r'id="(\w+?)_figure_1"', page)
    assert len(figures) == len({*figures}) == 2, "figures of one page must not share ids"


def test_several_budgets_are_several_tasks_with_the_same_short_runs(trained: list[list[str]], tmp_path: Path) -> None:
    table = compare(configure(*SMALL, "budget=[3,8]", f"output_dir={tmp_path}"))
    found = [(s.task, s.method, s.steps) for s in table]
    assert found == [
        ("camera_64_3s", "soap", 25),
        ("camera_64_3s", "soap_S", 12),
        ("camera_64_8s", "soap", 75),
        ("camera_64_8s", "soap_S", 37),
    ]
    assert len(trained) == 3 + 2 * 2 * (2 + 1)
    assert "gets 3 or 8 CPU seconds" in (tmp_path / "index.html").read_text()


def test_a_method_that_cannot_be_run_is_failed_and_the_race_goes_on(trained: list[list[str]], tmp_path: Path) -> None:
    table = compare(configure(*SMALL, "methods=[muon,soap]", f"output_dir={tmp_path}"))
    assert [(s.method, s.failed, s.steps) for s in table] == [("muon", 1, 4), ("soap", 0, 25)]
    assert "The loss is nan." in (tmp_path / "index.html").read_text()


def test_batch_sizes_are_trials_too(trained: list[list[str]], tmp_path: Path) -> None:
    """A step of 100 pixels costs half; 47 of them are better than 25 of all without S, and not with it."""
    table = compare(configure(*SMALL, "batch_sizes=[own,100]", f"output_dir={tmp_path}"))
    assert [(s.method, s.batch, s.rate, s.steps) for s in table] == [
        ("soap", "100", 0.01, 50),
        ("soap_S", "own", 0.02, 12),
    ]
    assert len(trained) == 2 + 2 + 1 + 2 + 2 * 2 * 2 + 2, (
        "short runs and trials with each; the best trial of each method"
    )
    found = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert [(cell["method"], cell["batch"]) for cell in found if cell["seed"] == 1] == [
        ("soap", "100"),
        ("soap_S", "own"),
    ]
    commands = [cell["command"] for cell in found if cell["batch"] == "100"]
    assert len(commands) == 5 and all("data.batch_size=100" in command for command in commands)
    with (tmp_path / "results.csv").open() as file:
        assert {row["batch"] for row in csv.DictReader(file)} == {"own", "100"}
    page = (tmp_path / "index.html").read_text()
    assert "each with 2 batch sizes (own, 100)" in page and ">100</td>" in page and "batch 100" in page


@pytest.mark.filterwarnings("ignore:optimizer=lbfgs with data.batch_size")
def test_what_a_batch_size_says_to_the_program() -> None:
    words = {batch: _contest(configure(), "camera_128", "lbfgs", batch).words for batch in ("own", "all", "100")}
    assert words["all"] == (*words["own"], "data.batch_size=null")
    assert words["100"] == (*words["own"], "data.batch_size=100")
    assert _contest(configure("race=poisson"), "poisson2d", "adam", "500").words[-1] == "data.points=500"


def test_short_runs_are_made_at_the_lowest_rate(trained: list[list[str]], tmp_path: Path) -> None:
    """A method whose default rate diverges takes part with a lower one."""
    compare(configure(*SMALL, "rates=[1,0.5,2]", f"output_dir={tmp_path}"))
    assert all("optimizer.lr=0.005" in words for words in trained[:3])


@pytest.mark.parametrize(("factor", "foreseen", "made"), [(0.5, ["12"], 25), (2, ["20", "50"], 25)])
def test_a_first_trial_that_misses_its_budget_is_made_anew(
    trained: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    factor: float,
    foreseen: list[str],
    made: int,
) -> None:
    """A machine that was slow, or fast, in the short runs: 25 steps are what 3 seconds hold, half of one to start."""
    foretold = race_cells.Result.steps_to_fill

    def mistaken(result: race_cells.Result, seconds: float) -> int:
        return int(foretold(result, seconds) * (factor if result.cell.steps in (4, 20) else 1))

    monkeypatch.setattr(race_cells.Result, "steps_to_fill", mistaken)
    table = compare(configure(*SMALL, "methods=[soap]", f"output_dir={tmp_path}"))
    assert [(s.method, s.steps) for s in table] == [("soap", made)]
    steps = [word.partition("=")[2] for words in trained for word in words if word.startswith("trainer.max_steps=")]
    assert steps == ["4", *foreseen, *3 * [str(made)]], "the first trial twice, the others once"
    found = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert [cell["steps"] for cell in found] == [made] * 3, "what missed its budget is no trial"


def test_the_target_may_be_given(trained: list[list[str]], tmp_path: Path) -> None:
    table = compare(configure(*SMALL, "race.target=8", f"output_dir={tmp_path}"))
    assert [(s.target, s.seconds) for s in table] == [(8, 1.3), (8, 0.5)]  # 0, 8, 25 without; 10 at once with S


def test_trials_multiply_the_damping_where_there_is_no_rate(tmp_path: Path) -> None:
    contest = _contest(configure("race=poisson"), "poisson2d", "gauss_newton")
    assert (contest.knob, contest.value) == ("optimizer.mu", 3e-11)
    assert _contest(configure("race=poisson"), "poisson2d", "adam").knob == "optimizer.lr"
    cell = Cell("poisson2d", "gauss_newton", contest.words, 0, 3e-10, 5, knob=contest.knob)
    assert "optimizer.mu=3e-10" in cell.overrides()


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("tasks=[camera_46]", "Did you mean camera_64"),
        ("methods=[sopa]", "there is no 'sopa'"),
        ("race.better=more", "one of higher, lower"),
        ("race.target=far", "race.target"),
        ("race.common=[1]", "race.common"),
        ("race.baselines=[sopa]", "must name some"),
        ("race.baselines=[]", "must name some"),
        ("budget=[]", "budget"),
        ("budget=[5,0]", "budget"),
        ("budget=-1", "budget=-1"),
        ("seeds=[]", "seeds"),
        ("rates=[0]", "rates"),
        ("batch_sizes=[]", "batch_sizes"),
        ("batch_sizes=[some]", "such as [own, 1024]"),
        ("batch_sizes=[0]", "batch_sizes"),
        ("batch_sizes=[10,10]", "without repeats"),
        ("race.batch_key=data.size", "one of data.batch_size, data.points"),
        ("batch_sizes=[1024] race.batch_key=data.points", "data.points"),
        ("+race.methods.mine=['optimizer=sopa']", "optimizer=soap"),
        ("+race.methods.mine=['optimizer.lr=-1']", "optimizer.lr=-1"),
    ],
)
def test_mistakes_are_said_before_anything_runs(trained: list[list[str]], tmp_path: Path, word: str, says: str) -> None:
    some = ["tasks=[camera_64]", "methods=[soap,mine]"] if "methods.mine" in word else []
    with pytest.raises(InputError, match=re.escape(says)):
        compare(configure(f"output_dir={tmp_path / 'new'}", *some, *word.split(" ")))
    assert not trained and not (tmp_path / "new").exists()


def test_another_setting_is_another_folder(tmp_path: Path) -> None:
    one = Cell("task", "soap", ("optimizer=soap",), 0, 0.01, 100)
    other = Cell("task", "soap", ("optimizer=soap",), 0, 0.01, 101)
    assert one.folder(tmp_path) != other.folder(tmp_path)
    assert one.folder(tmp_path) == Cell("task", "soap", ("optimizer=soap",), 0, 0.01, 100).folder(tmp_path)


@pytest.mark.slow
def test_a_cell_is_trained_by_the_program(tmp_path: Path) -> None:
    words = ("data.size=12", "model.width=16", "spectrum.rank=8", "spectrum.subset_size=64")
    result = run_cell(Cell("tiny", "soap", words, 0, 0.01, 4, figures=True), tmp_path)
    assert [row["step"] for row in result.curve] == [0, 1, 2, 3, 4]
    assert result.cpu_seconds > 0 and (result.folder / "figures" / "reconstruction.npz").exists()
    assert run_cell(Cell("tiny", "bad", (*words, "model.depth=-1"), 0, 0.01, 4), tmp_path).error.startswith(
        "model.depth"
    )


@pytest.mark.slow
def test_an_equation_is_raced_too(tmp_path: Path) -> None:
    words = ("race=poisson", "tasks=[poisson2d]", "methods=[adam,gauss_newton]", "seeds=[0]", "rates=[1]", "budget=2")
    table = compare(
        configure(*words, "batch_sizes=[own]", "race.target=0.01", "calibration_steps=5", f"output_dir={tmp_path}")
    )
    assert {s.method: math.isinf(s.seconds) for s in table} == {"adam": True, "gauss_newton": False}


LOOK = """<script>
const column = (table, i) => [...table.tBodies[0].rows].map(row => row.cells[i].textContent);
const seen = [...document.querySelectorAll('table.sortable')].map(table =>
  [...table.tHead.rows[0].cells].map((th, i) =>
    [th.textContent, ...[1, 2].map(_ => { th.click(); return column(table, i); })]));
const paths = [...document.querySelectorAll('figure svg path')];
const curves = paths.filter(path => path.getBoundingClientRect().width > 100);
const found = {seen, curves: curves.length, pictures: document.querySelectorAll('figure svg image').length,
  requests: performance.getEntriesByType('resource').map(entry => entry.name)};
document.body.innerHTML = '<pre>' + JSON.stringify(found).replaceAll('<', '&lt;') + '</pre>';
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_the_page_in_a_browser(trained: list[list[str]], tmp_path: Path) -> None:
    """Every column sorts up and down, numbers as numbers; curves are drawn; nothing is asked of the network."""
    compare(configure(*SMALL, "methods=[soap,soap_S,muon]", "budget=[3,8]", f"output_dir={tmp_path}"))
    page = tmp_path / "index.html"
    page.write_text(page.read_text().replace("</body>", f"{LOOK}</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = ["chromium", *options, profile, page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found = json.loads(re.search(r"<pre>(.*)</pre>", dom, re.DOTALL)[1])  # type: ignore[index]
    assert found["requests"] == [] and found["curves"] >= 2 * 2 * 2 and found["pictures"] >= 2 * 3
    assert len(found["seen"]) == 2, "a table for every budget"
    for table in found["seen"]:
        for name, rising, falling in table:
            assert sorted(rising) == sorted(falling) and len(rising) == 3, name
            assert numbers(rising) == sorted(numbers(rising)) and numbers(falling) == numbers(rising)[::-1], name
        columns = {name: rising for name, rising, _ in table}
        assert columns["method"] == ["muon", "soap", "soap_S"]
    steps = [{name: rising for name, rising, _ in table}["steps"] for table in found["seen"]]
    assert steps == [["4", "12", "25"], ["4", "37", "75"]], "as numbers, not as words"


def numbers(column: list[str]) -> list[float] | list[str]:
    """A column as it sorts: what failed first, what was not reached or is missing last."""
    words = {"not reached": "inf", "–": "inf", "failed": "-inf", "own": "0"}
    try:
        return [float(words.get(first := text.split(" – ")[0], first)) for text in column]
    except ValueError:
        return column
