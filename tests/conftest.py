"""Shape checks on the mathematics, one thread, and hypothesis without deadlines, for every test."""

import os

import hypothesis
import pytest
import torch
from jaxtyping import install_import_hook

# Before the first import of spectrain: shapes in annotations are checked while the tests run, and only then.
CHECKED = ["kernels", "spectrum", "preconditioners", "spectral_maps", "regression", "selection", "pde"]
install_import_hook([f"spectrain.{name}" for name in CHECKED], "shape_checks.check")

# Small matrices: a second thread costs more than it gives, and one thread makes sums repeatable.
torch.set_num_threads(1)

hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`gpu` tests are skipped where there is none."""
    if "gpu" in item.keywords and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
