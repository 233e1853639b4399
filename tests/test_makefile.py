"""`make train` on a fresh clone: what .venv is trusted, what is made again, and how ARGS travel."""

import importlib.util
import os
import shutil
import subprocess
import sys
import venv as venv_module
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


class Clone:
    """A folder with requirement files and a with_venv.py whose pip is a fake."""

    def __init__(self, root: Path, module: ModuleType) -> None:
        self.root, self.module, self.venv = root, module, root / ".venv"
        self.commands: list[str] = []
        self.on_pip: Callable[[], int] = lambda: 0

    def run_logged(self, command: list[str], log_path: str) -> int:
        """Instead of the real one: `python -m venv` makes an environment without pip, pip does as the test says."""
        Path(log_path).write_text("the log\n")
        assert self.module.read_stamp(str(self.venv))["key"] == "incomplete", "nothing may look finished now"
        if command[1:3] == ["-m", "venv"]:
            self.commands.append("venv")
            venv_module.EnvBuilder(with_pip=False, symlinks=True).create(command[3])
            (self.venv / "bin" / "pip").write_text(f"#!{self.venv}/bin/python\n")
            return 0
        self.commands.append("pip" if command[1:3] == ["-m", "pip"] else "import")
        return self.on_pip()

    def ensure(self) -> list[str]:
        """What the next `make` would do, as a list of command kinds."""
        self.commands = []
        self.module.ensure(str(self.venv))
        return self.commands


def load(root: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    spec = importlib.util.spec_from_file_location("with_venv", ROOT / "scripts" / "with_venv.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    clone = Clone(root, module)
    monkeypatch.setattr(module, "ROOT", str(root))
    monkeypatch.setattr(module, "run_logged", clone.run_logged)
    return clone


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    root = tmp_path / "clone"
    root.mkdir()
    for name in ("requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        (root / name).write_text(f"# {name}\n")
    return load(root, monkeypatch)


MADE = ["venv", "pip", "pip", "import"]
UPDATED = ["pip", "pip", "import"]


def test_a_fresh_clone_is_installed_once(clone: Clone) -> None:
    assert clone.ensure() == MADE
    assert clone.ensure() == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "pyproject.toml", "setup.py"])
def test_changed_requirements_update_in_place(clone: Clone, name: str) -> None:
    clone.ensure()
    (clone.root / name).write_text("torch==2.13.0\n")
    assert clone.ensure() == UPDATED
    assert clone.ensure() == []


def test_requirements_changed_during_the_installation_are_installed_next_time(clone: Clone) -> None:
    def edit() -> int:
        (clone.root / "requirements.txt").write_text("edited\n")
        return 0

    clone.on_pip = edit
    clone.ensure()
    assert clone.ensure() == UPDATED


@pytest.mark.parametrize("failing_call", [1, 2, 3])
@pytest.mark.parametrize("update", [False, True])
def test_a_failed_installation_is_not_mistaken_for_a_good_one(
    clone: Clone, failing_call: int, update: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if update:
        clone.ensure()
        (clone.root / "requirements.txt").write_text("new\n")
    calls = iter(range(1, 9))
    clone.on_pip = lambda: int(next(calls) == failing_call)
    with pytest.raises(SystemExit) as stop:
        clone.ensure()
    assert stop.value.code == 2
    assert "made again by the next call" in capsys.readouterr().err
    clone.on_pip = lambda: 0
    assert clone.ensure() == MADE
    assert clone.ensure() == []


def test_an_interrupted_installation_is_made_again(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    clone.on_pip = interrupt
    with pytest.raises(SystemExit) as stop:
        clone.module.main(["python", "never-run.py"])
    assert stop.value.code == 130
    assert "Interrupted" in capsys.readouterr().err
    clone.on_pip = lambda: 0
    assert clone.ensure() == MADE


def test_an_interrupted_removal_is_made_again(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    clone.ensure()
    (clone.venv / "bin" / "python").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(clone.module.shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            clone.ensure()
    (clone.venv / "bin" / "python").symlink_to(sys.executable)
    assert clone.ensure() == MADE


def test_a_moved_clone_is_made_again(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    clone.ensure()
    moved = clone.root.rename(clone.root.parent / "moved")
    assert load(moved, monkeypatch).ensure() == MADE


def test_a_copied_venv_is_made_again(clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone.ensure()
    copy = tmp_path / "copy"
    shutil.copytree(clone.root, copy, symlinks=True)
    assert load(copy, monkeypatch).ensure() == MADE
    (copy / ".venv" / "spectrain-stamp").unlink()
    (copy / ".venv" / "bin" / "pip").write_text(f"#!{clone.venv}/bin/python\n")
    assert load(copy, monkeypatch).ensure() == MADE


def test_a_vanished_python_is_made_again(clone: Clone) -> None:
    clone.ensure()
    for link in (clone.venv / "bin").glob("python*"):
        link.unlink()
        link.symlink_to("/nonexistent/python3")
    assert clone.ensure() == MADE


def test_a_python_of_another_version_in_the_same_place_is_noticed(clone: Clone) -> None:
    clone.ensure()
    stamp = clone.venv / "spectrain-stamp"
    stamp.write_text(stamp.read_text().replace(f"[3, {sys.version_info.minor}]", "[3, 5]"))
    assert clone.ensure() != []


@pytest.mark.parametrize("half_made", ["file", "empty folder", "folder without python", "python that is not its own"])
def test_what_is_not_an_environment_is_replaced(clone: Clone, half_made: str) -> None:
    if half_made == "file":
        clone.venv.write_text("")
    else:
        clone.venv.mkdir()
    if half_made == "folder without python":
        (clone.venv / "lib").mkdir()
        (clone.venv / "pyvenv.cfg").write_text("home = /usr/bin\n")
    if half_made == "python that is not its own":
        (clone.venv / "bin").mkdir()
        (clone.venv / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    assert clone.ensure() == MADE
    assert clone.ensure() == []


def test_a_sound_environment_made_by_hand_is_kept_and_completed(clone: Clone) -> None:
    venv_module.EnvBuilder(with_pip=False, symlinks=True).create(clone.venv)
    (clone.venv / "mine").write_text("kept")
    assert clone.ensure() == UPDATED
    assert (clone.venv / "mine").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"key": 3}'])
def test_an_unreadable_stamp_is_no_stamp(clone: Clone, content: str) -> None:
    clone.ensure()
    (clone.venv / "spectrain-stamp").write_text(content)
    assert clone.ensure() != []
    assert clone.ensure() == []


def test_a_python_that_is_too_old_is_named(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clone.module, "MINIMUM", (99, 0))
    with pytest.raises(SystemExit) as stop:
        clone.ensure()
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "needs Python 3.11 or newer" in message and "PYTHON=" in message
    assert not clone.venv.exists()


def test_the_active_environment_is_not_the_base_of_its_own_successor(clone: Clone) -> None:
    assert not Path(clone.module.pick_python()).is_relative_to(ROOT / ".venv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("model.width=512 logger=csv", ["model.width=512", "logger=csv"]),
        ("data.path='my photo.png'", ["data.path=my photo.png"]),
        ('data.path="my photo.png"', ["data.path=my photo.png"]),
        ("-m optimizer.lr=choice(1e-2,3e-3)", ["-m", "optimizer.lr=choice(1e-2,3e-3)"]),
        ("paths.run=${oc.env:HOME};*", ["paths.run=${oc.env:HOME};*"]),
    ],
)
def test_args_are_words_quoted_as_in_a_shell(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str]
) -> None:
    monkeypatch.setenv("SPECTRAIN_ARGS", text)
    assert clone.module.extra_words() == words


def test_an_open_quote_in_args_is_a_clear_error(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPECTRAIN_ARGS", "data.path='my photo.png")
    with pytest.raises(SystemExit) as stop:
        clone.module.extra_words()
    assert stop.value.code == 2
    assert "no closing quotation" in capsys.readouterr().err


def make(*words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    inherited = ("ARGS", "SPECTRAIN_ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    return subprocess.run(
        ["make", *words], cwd=ROOT, env=environment | extra, capture_output=True, text=True, check=False
    )


def test_make_alone_lists_every_target() -> None:
    shown = make().stdout
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    for target in phony.split()[1:]:
        assert f"  {target} " in shown, target


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("train", "--args python scripts/train.py"),
        ("evaluate", "--args python scripts/evaluate.py"),
        ("test", "--args python -m pytest"),
        ("lint", "mypy"),
    ],
)
def test_targets_run_inside_the_environment(target: str, command: str) -> None:
    done = make("-n", target)
    assert done.returncode == 0
    assert f"scripts/with_venv.py {command}" in done.stdout


@pytest.mark.parametrize("how", ["command line", "environment"])
def test_args_reach_the_program_as_typed(tmp_path: Path, how: str) -> None:
    show = tmp_path / "python3"
    show.write_text('#!/bin/sh\nprintf "%s|" "$@" "$SPECTRAIN_ARGS"\n')
    show.chmod(0o755)
    args = "a='x y' b=${oc.env:HOME} c=choice(1,2) d=$HOME"
    given = [f"ARGS={args}"] if how == "command line" else []
    done = make("train", f"PYTHON={show}", *given, **({} if given else {"ARGS": args}))
    assert done.stdout == f"scripts/with_venv.py|--args|python|scripts/train.py|{args}|"


def test_a_failing_program_makes_make_fail_with_2(tmp_path: Path) -> None:
    failing = tmp_path / "python3"
    failing.write_text("#!/bin/sh\nexit 2\n")
    failing.chmod(0o755)
    assert make("train", f"PYTHON={failing}").returncode == 2


def test_a_missing_python_is_named() -> None:
    done = make("train", "PYTHON=/nonexistent/python3")
    assert done.returncode == 2
    assert "error: /nonexistent/python3 was not found" in done.stderr
