"""Where the configuration lives: conf/ of the repository when installed from it, the copy in the wheel otherwise."""

from pathlib import Path

from spectrain.errors import InputError


def config_dir() -> Path:
    """The folder with train.yaml and the config groups.

    A repository's conf/ comes first, so that an editable installation (and PYTHONPATH=src) uses the files one edits.

    Raises:
        InputError: neither exists; the installation is not whole.
    """
    package = Path(__file__).resolve().parents[1]
    repository = package.parents[1]
    # pyproject.toml beside it tells a repository from an unrelated conf/ above site-packages.
    in_repository = repository / "conf" if (repository / "pyproject.toml").exists() else package / "conf"
    for folder in (in_repository, package / "conf"):
        if (folder / "train.yaml").exists():
            return folder
    raise InputError(f"the configuration files were not found in {in_repository}; install spectrain again.")
