"""One offline page of one or several runs: python scripts/report.py runs/A runs/B."""

from spectrain.cli.report import main

main()
