"""``scripts/wandb_report.py``: a W&B project gets its panels."""

import argparse
import sys

from spectrain.cli.errors import run_guarded
from spectrain.lightning.dashboard import publish


def main() -> None:
    """Read the command line, make the dashboard, say where it is."""
    parser = argparse.ArgumentParser(prog="wandb_report", description="Make the panels of a W&B project's dashboard.")
    parser.add_argument("project", help="such as spectrain, the default of logger.project")
    parser.add_argument("--entity", help="user or team (default: that of the login)")
    words = parser.parse_args()
    code = run_guarded(lambda: print(f"dashboard: {publish(words.project, words.entity)}"))
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
