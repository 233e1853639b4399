"""Recurrent layers and cells: two Linear layers per step, whose weights are shared by all steps.

Legend: n points, T steps, d inputs, h hidden units, D directions.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.kernels.registry import NoRuleError, register_rule
from spectrain.kernels.tape import Tape

State = tuple[Tensor, ...]
# From the input's part and the hidden state's part of the gates [n, gates h], and the state, to the new state.
Cell = Callable[[Tensor, Tensor, State], State]


def _rnn(activation: Callable[[Tensor], Tensor]) -> Cell:
    def cell(xs: Tensor, hs: Tensor, state: State) -> State:
        return (activation(xs + hs),)

    return cell


def _lstm(xs: Tensor, hs: Tensor, state: State) -> State:
    i, f, g, o = (xs + hs).chunk(4, 1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru(xs: Tensor, hs: Tensor, state: State) -> State:
    (xr, xz, xn), (hr, hz, hn) = xs.chunk(3, 1), hs.chunk(3, 1)
    z, new = (xz + hz).sigmoid(), (xn + (xr + hr).sigmoid() * hn).tanh()
    return ((1 - z) * new + z * state[0],)


def _cell(module: nn.Module) -> Cell:
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return _lstm
    if isinstance(module, (nn.GRU, nn.GRUCell)):
        return _gru
    return _rnn(torch.relu if module.nonlinearity == "relu" else torch.tanh)


@register_rule(nn.RNN, nn.LSTM, nn.GRU)
def recurrent(
    tape: Tape, module: nn.RNNBase, input: Tensor, hx: Tensor | State | None = None
) -> tuple[Tensor, Tensor | State]:
    """All layers and directions; packed sequences are not for the rules."""
    if not isinstance(input, Tensor) or input.ndim != 3 or (module.training and module.dropout > 0):
        raise NoRuleError
    x = input if module.batch_first else input.transpose(0, 1)
    directions = 2 if module.bidirectional else 1
    start = _initial(module, x, hx, directions)
    last: list[State] = []
    for layer in range(module.num_layers):
        outputs = []
        for direction in range(directions):
            k = layer * directions + direction
            suffix = f"l{layer}" + ("_reverse" if direction else "")
            steps, state = _run(tape, module, x, suffix, tuple(s[k] for s in start), backwards=direction == 1)
            outputs.append(steps)
            last.append(state)
        x = torch.cat(outputs, 2)
    final = tuple(torch.stack(part) for part in zip(*last, strict=True))
    return x if module.batch_first else x.transpose(0, 1), final if isinstance(module, nn.LSTM) else final[0]


def _initial(module: nn.RNNBase, x: Tensor, hx: Tensor | State | None, directions: int) -> State:
    if hx is not None:
        return (hx,) if isinstance(hx, Tensor) else tuple(hx)
    k = module.num_layers * directions
    hidden = x.new_zeros(k, x.shape[0], module.proj_size or module.hidden_size)
    return (hidden, x.new_zeros(k, x.shape[0], module.hidden_size)) if isinstance(module, nn.LSTM) else (hidden,)


def _run(
    tape: Tape, module: nn.RNNBase, x: Float[Tensor, "n T d"], suffix: str, state: State, *, backwards: bool
) -> tuple[Float[Tensor, "n T h"], State]:
    bias_ih, bias_hh = (getattr(module, f"bias_{part}_{suffix}", None) for part in ("ih", "hh"))
    projection = getattr(module, f"weight_hr_{suffix}", None)
    weight_hh, cell = getattr(module, f"weight_hh_{suffix}"), _cell(module)
    xs = tape.linear(x, getattr(module, f"weight_ih_{suffix}"), bias_ih)
    order = range(x.shape[1])
    outputs: dict[int, Tensor] = {}
    for t in reversed(order) if backwards else order:
        state = cell(xs[:, t], tape.linear(state[0], weight_hh, bias_hh), state)
        if projection is not None:
            state = (tape.linear(state[0], projection), *state[1:])
        outputs[t] = state[0]
    return torch.stack([outputs[t] for t in order], 1), state


@register_rule(nn.RNNCell, nn.LSTMCell, nn.GRUCell)
def recurrent_cell(
    tape: Tape, module: nn.RNNCellBase, input: Tensor, hx: Tensor | State | None = None
) -> Tensor | State:
    """One step."""
    if input.ndim != 2:
        raise NoRuleError
    zeros = input.new_zeros(input.shape[0], module.hidden_size)
    state = (zeros, zeros) if hx is None else (hx,) if isinstance(hx, Tensor) else tuple(hx)
    xs = tape.linear(input, module.weight_ih, module.bias_ih)
    new = _cell(module)(xs, tape.linear(state[0], module.weight_hh, module.bias_hh), state)
    return new if isinstance(module, nn.LSTMCell) else new[0]
