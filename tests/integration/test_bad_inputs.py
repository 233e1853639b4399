"""Bad configurations and inputs by the hundred, as the command line meets them: exit code 2, one sentence."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_files import make_files
from bad_inputs import CASES, Case
from program import TINY, call

ALL = [case for cases in CASES.values() for case in cases]
LONGEST = 1000  # characters of a sentence; the choices of a group are many


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    make_files(folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_written(place: Path, clean_process: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No file is made, and none is touched."""

    def snapshot() -> dict[str, tuple[int, int]]:
        return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in place.rglob("*")}

    monkeypatch.chdir(place)
    before = snapshot()
    yield
    assert snapshot() == before


def check(case: Case) -> None:
    words, said = case
    error = call(*words).error
    assert all(part in error for part in said), error
    assert len(error) < LONGEST


def test_there_are_more_than_200() -> None:
    assert len({tuple(words) for words, _ in ALL}) >= 200


@pytest.mark.parametrize("case", [cases[len(cases) // 2] for cases in CASES.values()], ids=[*CASES])
def test_one_of_each_category(case: Case) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", ALL, ids=[" ".join(words)[:60].encode("unicode_escape").decode() for words, _ in ALL])
def test_refused_in_one_sentence(case: Case) -> None:
    check(case)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["spectrum.budget=0.3"], "spectrum.budget=0.3 has no effect without spectrum.refresh=budget"),
        (["optimizer=schedule_free"], "take schedule=constant"),
        (["schedule.warmup_steps=400"], "the rate never reaches optimizer.lr"),
        (["+optimizer.foo=1"], "optimizer.foo is not among the arguments"),
    ],
)
def test_what_has_no_effect_is_said(words: list[str], said: str) -> None:
    """Beside a mistake that stops the run before it begins."""
    outcome = call(*TINY, *words, "trainer.precision=some")
    assert outcome.error and said in outcome.err
