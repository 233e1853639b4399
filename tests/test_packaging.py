"""What gets installed: pinned requirements that agree with pyproject.toml, and a wheel with the configuration in it."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from spectrain.cli.config_dir import config_dir
from spectrain.errors import InputError

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(name: str) -> dict[str, Requirement]:
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


RUN, DEVELOP = pins("requirements.txt"), pins("requirements-dev.txt")

EXTRAS = {
    canonicalize_name(Requirement(line).name) for lines in PROJECT["optional-dependencies"].values() for line in lines
}


@pytest.mark.parametrize("requirement", [*RUN.values(), *DEVELOP.values()], ids=str)
def test_every_requirement_is_pinned_and_installed_as_pinned(requirement: Requirement) -> None:
    assert re.fullmatch(r"==[0-9.]+", str(requirement.specifier))
    assert requirement.specifier.contains(version(requirement.name).partition("+")[0])


def test_pins_lie_in_the_ranges_of_pyproject() -> None:
    ranges = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}
    assert set(ranges) == set(RUN)
    for name, allowed in ranges.items():
        assert allowed.specifier.contains(str(RUN[name].specifier).removeprefix("==")), name


def test_torch_and_lightning_stay_where_they_must() -> None:
    assert str(RUN["torch"]) == "torch==2.13.0"
    allowed = next(r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "pytorch-lightning")
    # Two compromised releases.
    assert not allowed.specifier.contains("2.6.2")
    assert not allowed.specifier.contains("2.6.3")


@pytest.mark.parametrize(("folder", "known"), [("src", RUN), ("tests", RUN | DEVELOP)])
def test_whatever_is_imported_is_required(folder: str, known: dict[str, Requirement]) -> None:
    distributions = packages_distributions()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                names = {canonicalize_name(name) for name in distributions.get(module.split(".")[0], [])}
                assert not names or names & {*known, *EXTRAS, "spectrain"}, f"{path} imports {module}"


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "pyproject.toml", "Makefile", ".ci/run"])
def test_no_registry_is_named(name: str) -> None:
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links", (ROOT / name).read_text())


def test_the_configuration_of_a_repository_is_its_own() -> None:
    assert config_dir() == ROOT / "conf"


def test_an_installed_package_has_its_own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "lib" / "site-packages" / "spectrain" / "cli" / "config_dir.py"
    monkeypatch.setattr("spectrain.cli.config_dir.__file__", str(module))
    (tmp_path / "lib" / "conf").mkdir(parents=True)
    (tmp_path / "lib" / "conf" / "train.yaml").write_text("somebody else's")
    with pytest.raises(InputError, match="install spectrain again"):
        config_dir()
    own = module.parents[1] / "conf"
    own.mkdir(parents=True)
    (own / "train.yaml").write_text("")
    assert config_dir() == own


def files() -> list[str]:
    """What git tracks or would track."""
    list_files = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(list_files, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    clone = folder / "clone"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in tracked:
        if name and (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes((ROOT / name).read_bytes())
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(clone),
    ]
    subprocess.run(pip, check=True)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_conf_and_of_the_package(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"spectrain/{name}" for name in files() if name.startswith("conf/")}
    wanted |= {name.removeprefix("src/") for name in files() if name.startswith("src/")}
    assert wanted <= inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    assert not any(name.startswith(("tests", "scripts")) for name in inside)


@pytest.mark.slow
def test_an_installed_wheel_finds_its_configuration(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import spectrain, spectrain.cli.config_dir as c; print(c.config_dir())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == tmp_path / "site" / "spectrain" / "conf"


@pytest.mark.slow
def test_an_installed_wheel_trains_in_any_folder_with_files_of_ones_own(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    words = "model: {width: 8, depth: 1}\ndata: {size: 8}\nspectrum: {rank: 4, subset_size: 16}\n"
    words += "trainer: {max_steps: 2, val_check_interval: 2, accelerator: cpu}\n"
    own = tmp_path / "mine" / "experiment" / "quick.yaml"
    own.write_text(f"# @package _global_\ndefaults:\n  - override /optimizer: adam\n{words}")
    program = [sys.executable, "-c", "from spectrain.cli.train import main; main()", "--config-dir", "mine"]
    command = [*program, "experiment=quick", "logger=none", "figures=false", "baseline=false"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("quick-") and (run / "summary.json").exists()
