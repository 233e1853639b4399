"""nn.MultiheadAttention: four Linear layers around an attention without parameters.

Legend: n points, Q queries, S keys, H heads, E = H h embedding.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.kernels.registry import NoRuleError, register_rule
from spectrain.kernels.tape import Tape


@register_rule(nn.MultiheadAttention)
def multihead_attention(
    tape: Tape,
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Projections, softmax(q k^T / sqrt(h) + mask) v, output projection; `is_causal` is a hint about the mask only."""
    if query.ndim != 3 or query.is_nested:
        raise NoRuleError
    q, k, v = _projected(tape, module, query, key, value)
    n, _, E = q.shape
    if module.bias_k is not None and module.bias_v is not None:
        k = torch.cat([k, tape.add(k.new_zeros(n, 1, E), module.bias_k)], 1)
        v = torch.cat([v, tape.add(v.new_zeros(n, 1, E), module.bias_v)], 1)
    if module.add_zero_attn:
        k, v = (torch.cat([t, t.new_zeros(n, 1, E)], 1) for t in (k, v))
    q, k, v = (t.reshape(n, t.shape[1], module.num_heads, -1).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
    for mask in (_attention_mask(attn_mask, n), None if key_padding_mask is None else key_padding_mask[:, None, None]):
        if mask is not None:
            scores = scores + _additive(mask, scores)
    weights = scores.softmax(3)
    output = (weights @ v).transpose(1, 2).flatten(2)
    output = tape.linear(output, module.out_proj.weight, module.out_proj.bias)
    if not module.batch_first:
        output = output.transpose(0, 1)
    if not need_weights:
        return output, None
    return output, weights.mean(1) if average_attn_weights else weights


def _projected(
    tape: Tape, module: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Float[Tensor, "n Q E"], Float[Tensor, "n S E"], Float[Tensor, "n S E"]]:
    inputs = [query, key, value]
    same = query is key and key is value
    if not module.batch_first:
        inputs = [t.transpose(0, 1) for t in inputs]
    bias, E = module.in_proj_bias, module.embed_dim
    if module.in_proj_weight is not None:
        if same:
            q, k, v = tape.linear(inputs[0], module.in_proj_weight, bias).chunk(3, 2)
            return q, k, v
        weights = [module.in_proj_weight] * 3
        parts = [slice(i * E, (i + 1) * E) for i in range(3)]
        q, k, v = (tape.linear(x, w, bias, rows=r) for x, w, r in zip(inputs, weights, parts, strict=True))
        return q, k, v
    q, k, v = (
        tape.linear(x, w)
        for x, w in zip(inputs, (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight), strict=True)
    )
    if bias is not None:
        q, k, v = (tape.add_rows(x, bias, slice(i * E, (i + 1) * E)) for i, x in enumerate((q, k, v)))
    return q, k, v


def _attention_mask(mask: Tensor | None, n: int) -> Tensor | None:
    return mask if mask is None or mask.ndim == 2 else mask.view(n, -1, *mask.shape[1:])


def _additive(mask: Tensor, scores: Float[Tensor, "n H Q S"]) -> Tensor:
    """The mask as numbers to add; keys that were appended after it are open."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(mask, float("-inf"))
    return nn.functional.pad(mask.to(scores.dtype), (0, scores.shape[3] - mask.shape[-1]))
