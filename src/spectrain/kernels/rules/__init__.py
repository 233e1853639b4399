"""The rules of the layers that come with torch; importing this registers them."""

from spectrain.kernels.rules import conv, embedding, linear, norm

__all__ = ["conv", "embedding", "linear", "norm"]
