"""spectrain: train wide networks with a chosen kernel spectrum."""

from importlib.metadata import version

__version__ = version("spectrain")
