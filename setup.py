"""Only what pyproject.toml cannot say: a wheel carries conf/ as spectrain/conf/, so that an installed program finds it.

In an editable installation nothing is copied: spectrain.cli.config_dir() finds the repository's own conf/.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConf(build_py):
    """The usual build, then a fresh copy of conf/."""

    def run(self) -> None:
        """Copy after the packages were copied."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "spectrain" / "conf"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree("conf", target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


setup(cmdclass={"build_py": BuildWithConf})
