"""Train a network: python scripts/train.py [KEY=VALUE ...]."""

from spectrain.cli.train import main

main()
