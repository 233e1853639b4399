"""The rules of the layers that come with torch; importing this registers them."""

from spectrain.kernels.rules import linear

__all__ = ["linear"]
