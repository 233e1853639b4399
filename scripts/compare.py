"""Race methods over tasks: python scripts/compare.py race=photographs budget=20."""

from spectrain.cli.compare import main

main()
