"""Suggest a spectral map for a configuration: python scripts/suggest.py data.path=... model.width=..."""

from spectrain.cli.suggest import main

main()
