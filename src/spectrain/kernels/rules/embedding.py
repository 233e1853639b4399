"""Embeddings: rows of a table."""

import torch
from torch import Tensor, nn

from spectrain.kernels.registry import NoRuleError, register_rule
from spectrain.kernels.tape import Tape


@register_rule(nn.Embedding)
def embedding(tape: Tape, module: nn.Embedding, input: Tensor) -> Tensor:
    """A Linear layer on one-hot vectors; a table that renormalises itself (max_norm) is not one."""
    if module.max_norm is not None:
        raise NoRuleError
    return tape.embedding(input, module.weight, module.padding_idx)


@register_rule(nn.EmbeddingBag)
def embedding_bag(
    tape: Tape,
    module: nn.EmbeddingBag,
    input: Tensor,
    offsets: Tensor | None = None,
    per_sample_weights: Tensor | None = None,
) -> Tensor:
    """The sum, mean or maximum over a bag of rows, bags of one length [n, T]."""
    if (
        input.ndim != 2
        or offsets is not None
        or module.max_norm is not None
        or (module.padding_idx is not None and module.mode == "max")
    ):
        raise NoRuleError
    rows = tape.embedding(input, module.weight, module.padding_idx)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[..., None]
    if module.mode == "max":
        return rows.amax(1) if rows.shape[1] else rows.sum(1)
    if module.padding_idx is None:
        return rows.sum(1) if module.mode == "sum" else rows.mean(1)
    used = torch.ne(input, module.padding_idx)[..., None].to(rows.dtype)
    total = (rows * used).sum(1)
    return total if module.mode == "sum" else total / torch.clamp(used.sum(1), min=1)
