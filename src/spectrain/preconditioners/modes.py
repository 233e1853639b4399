"""Evaluation mode for a while, and which state of a tensor one has seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, then each module's own mode again: a part that a person froze must stay frozen.

    Dropout and batch norm have no kernel in training mode.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class stamp:  # noqa: N801
    """Tensors as they are now: equal to a later stamp of the same tensors, if none was changed in place since."""

    def __init__(self, x: Any) -> None:
        leaves = [leaf for leaf in tree_leaves(x) if isinstance(leaf, Tensor)]
        # Kept alive, so that no later tensor gets the same address.
        self._seen = [(leaf, 0 if leaf.is_inference() else leaf._version) for leaf in leaves]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, stamp) or len(self._seen) != len(other._seen):
            return False
        pairs = zip(self._seen, other._seen, strict=True)
        return all(a is b and version == later for (a, version), (b, later) in pairs)

    __hash__ = None  # type: ignore[assignment]
