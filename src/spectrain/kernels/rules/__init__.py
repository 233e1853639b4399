"""The rules of the layers that come with torch; importing this registers them."""

from spectrain.kernels.rules import attention, conv, embedding, linear, norm, recurrent

__all__ = ["attention", "conv", "embedding", "linear", "norm", "recurrent"]
