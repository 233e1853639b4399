"""The rules of the house that a machine can hold: layers, file lengths, docstrings, light imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "spectrain"

# Each layer imports only itself and what stands above it.
LAYERS = [
    {"errors"},
    {"kernels", "spectrum", "spectral_maps"},
    {"preconditioners", "optim", "regression", "selection"},
    {"models", "data", "pde", "metrics", "plots"},
    {"studies"},
    {"lightning"},
    {"cli"},
]
# Third-party packages and the rooms that may import them; a package that is not listed may be imported nowhere.
MATHEMATICS = LAYERS[1] | LAYERS[2]
ANYWHERE = set.union(*LAYERS)
THIRD_PARTY = {
    "torch": ANYWHERE,
    "numpy": ANYWHERE,
    "jaxtyping": ANYWHERE,
    "scipy": ANYWHERE,
    "einops": ANYWHERE,
    "sklearn": {"regression", "selection"},
    "pytorch_optimizer": {"optim"},
    "torchmetrics": {"metrics", "lightning"},
    "matplotlib": {"plots", "studies", "lightning"},
    "skimage": {"data"},
    "PIL": {"data", "cli"},
    "yaml": {"cli"},
    "pytorch_lightning": {"data", "lightning", "cli"},
    "lightning_utilities": {"lightning"},
    "wandb": {"lightning"},
    "rich": {"lightning", "cli"},
    "psutil": {"lightning"},
    "safetensors": {"lightning", "cli"},
    "hydra": {"cli"},
    "omegaconf": {"cli"},
}
# Of Lightning, data/ may know the data module only.
DATA_MAY_IMPORT = {"LightningDataModule"}

FILES = sorted(SOURCE.rglob("*.py"))
PARSED = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))


def room(path: Path) -> str:
    """kernels/empirical.py -> kernels; the package's own __init__.py has no room and may import all but Lightning."""
    first = path.relative_to(SOURCE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports(tree: ast.AST) -> list[tuple[str, str]]:
    """(module, imported name) of every import in a file, those inside functions included."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute, so that this test can read them"
            found += [(node.module or "", alias.name) for alias in node.names]
    return found


def rooms_imported(path: Path) -> set[str]:
    """The rooms of spectrain that a file imports from."""
    found = set()
    for module, name in imports(PARSED[path]):
        parts = module.split(".")
        if parts[0] == "spectrain":
            found.add(parts[1] if len(parts) > 1 else name)
    return found & ANYWHERE


def layer(name: str) -> int:
    return next(number for number, rooms in enumerate(LAYERS) if name in rooms)


def test_every_room_stands_in_a_layer() -> None:
    assert {room(path) for path in FILES} - {""} <= ANYWHERE


@every_file
def test_imports_go_upwards_only(path: Path) -> None:
    own = layer(room(path)) if room(path) else layer("metrics")
    too_low = {name for name in rooms_imported(path) if layer(name) > own}
    assert not too_low, f"{room(path)} stands above {too_low} and may not import it"


@every_file
def test_third_party_packages_stay_in_their_rooms(path: Path) -> None:
    for module, name in imports(PARSED[path]):
        package = module.split(".")[0]
        if package in sys.stdlib_module_names or package == "spectrain":
            continue
        assert package in THIRD_PARTY, f"{package} is not among the packages that src/ may import"
        allowed = THIRD_PARTY[package]
        assert room(path) in allowed, f"{package} belongs in {sorted(allowed)}"
        if package == "pytorch_lightning" and room(path) == "data":
            assert name in DATA_MAY_IMPORT, f"data/ may import Lightning's {DATA_MAY_IMPORT}, not {name or module}"


@every_file
def test_the_package_itself_is_imported_by_room(path: Path) -> None:
    """`from spectrain import x` inside the package hides which layer is meant, and goes in circles."""
    names = {name for module, name in imports(PARSED[path]) if module == "spectrain"} - ANYWHERE
    # The last three layers stand below everything that the package itself imports.
    assert room(path) in {"", "studies", "lightning", "cli"} or not names


@every_file
def test_one_lightning_only(path: Path) -> None:
    packages = {module.split(".")[0] for module, _ in imports(PARSED[path])}
    assert "lightning" not in packages, "import pytorch_lightning: the two packages do not mix"


@every_file
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400


def without_docstring(tree: ast.Module) -> list[str]:
    """Public functions and classes of a module without a docstring; the linter looks at their methods."""
    missing = [] if ast.get_docstring(tree) else ["the module"]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            is_overload = any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)
            if not is_overload and not ast.get_docstring(node):
                missing.append(node.name)
    return missing


@every_file
def test_public_names_have_docstrings(path: Path) -> None:
    assert without_docstring(PARSED[path]) == []


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, spectrain\n"
        "heavy = {'pytorch_lightning', 'lightning', 'hydra', 'omegaconf', 'wandb', 'matplotlib', 'skimage'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_checker_reads_every_form_of_import() -> None:
    tree = ast.parse(
        "import torch.nn as nn\nfrom spectrain import cli\ndef f():\n    from spectrain.cli import train\n"
    )
    assert imports(tree) == [("torch.nn", ""), ("spectrain", "cli"), ("spectrain.cli", "train")]
