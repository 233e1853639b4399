"""Evaluate a checkpoint: python scripts/evaluate.py ckpt_path=... [size=...]."""

from spectrain.cli.evaluate import main

main()
