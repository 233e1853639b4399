"""The panels of a W&B project's dashboard: python scripts/wandb_report.py PROJECT."""

from spectrain.cli.wandb_report import main

main()
