"""What every program of the command line does before Hydra runs its job."""

import sys
from collections.abc import Callable

from spectrain.cli.config_dir import config_dir
from spectrain.cli.errors import run_guarded
from spectrain.cli.overrides import check_overrides, normalize


def launch(job: Callable[[], None], config_name: str) -> None:
    """Check the command line against `config_name`, then let Hydra run `job`; a mistake exits before Hydra starts."""
    sys.argv[1:] = normalize(sys.argv[1:])
    code = run_guarded(lambda: check_overrides(sys.argv[1:], config_dir(), config_name), debug=False)
    if code:
        sys.exit(code)
    job()
