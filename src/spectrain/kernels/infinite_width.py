"""Kernels of infinitely wide fully connected networks, in closed form.

Legend: n, m points, d input dimensions. q1, q2, c = K(x, x), K(z, z), K(x, z) are (co)variances of the pre-activations
u, v at two points; theta is their angle, c = sqrt(q1 q2) cos(theta).

    h_1 = sqrt(s_w / d) W_0 x + sqrt(s_b) b_0,  h_(l+1) = sqrt(s_w / width) W_l phi(h_l) + sqrt(s_b) b_l, W, b ~ N(0,1)
    NNGP:  K_1 = s_w x.z / d + s_b,             K_(l+1) = s_w E[phi(u) phi(v)] + s_b
    NTK:   T_1 = K_1,                           T_(l+1) = K_(l+1) + s_w E[phi'(u) phi'(v)] T_l

Sources: Jacot et al. 2018 (arXiv 1806.07572) and Lee et al. 2019 (arXiv 1902.06720) for the recursion; Cho and Saul
2009 for relu; Williams 1997 for erf; Tsuchida et al. 2021 (arXiv 2002.08517) for gelu, here by Stein's lemma.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError
from spectrain.kernels.gram import spans

Activation = Literal["relu", "erf", "gelu", "sine", "identity"]
# (q1, q2, c) -> E[phi(u) phi(v)], E[phi'(u) phi'(v)]
Dual = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
_ROWS = 1024


def infinite_width_ntk(
    x1: Float[Tensor, "n d"],
    x2: Float[Tensor, "m d"] | None = None,
    *,
    depth: int,
    activation: Activation | Dual = "relu",
    weight_variance: float = 2.0,
    bias_variance: float = 0.0,
    output_weight_variance: float | None = None,
) -> Float[Tensor, "n m"]:
    """The NTK of a fully connected network of infinite width, of one output.

    `depth` counts hidden layers. `activation`: a name, or a function (q1, q2, c) -> (E[phi phi], E[phi' phi']) of
    your own. `weight_variance` s_w and `bias_variance` s_b as in the equations at the top of this file; s_w = 2 keeps
    relu's scale. `output_weight_variance` is s_w of the last layer where that differs (1 in
    `spectrain.models.networks`). Computed in float64, relu by angles that stay exact near x1 = +-x2, and returned in
    the dtype of x1. K, not K/n. Raises InputError for shapes, a depth below 1, variances below 0, or an unknown
    activation.
    """
    variances = _Variances(weight_variance, bias_variance, output_weight_variance, depth)
    return _kernels(x1, x2, activation, variances)[1]


def infinite_width_nngp(
    x1: Float[Tensor, "n d"],
    x2: Float[Tensor, "m d"] | None = None,
    *,
    depth: int,
    activation: Activation | Dual = "relu",
    weight_variance: float = 2.0,
    bias_variance: float = 0.0,
    output_weight_variance: float | None = None,
) -> Float[Tensor, "n m"]:
    """The covariance of the same network's outputs at initialisation (NNGP); arguments as for `infinite_width_ntk`."""
    variances = _Variances(weight_variance, bias_variance, output_weight_variance, depth)
    return _kernels(x1, x2, activation, variances)[0]


@dataclass(frozen=True)
class _Variances:
    """s_w, s_b, s_w of the output layer, and the number of hidden layers."""

    weight: float
    bias: float
    output: float | None
    depth: int

    def after(self) -> list[float]:
        """s_w of the layer that follows each hidden layer."""
        last = self.weight if self.output is None else self.output
        return [self.weight] * (self.depth - 1) + [last]


def _kernels(
    x1: Tensor, x2: Tensor | None, activation: Activation | Dual, v: _Variances
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    z = x1 if x2 is None else x2
    _check(x1, z, activation, v)
    d = x1.shape[1]
    # With the bias as one more coordinate, the first layer's kernel is a plain inner product.
    first, second = (
        torch.nn.functional.pad(t.double() * (v.weight / d) ** 0.5, (0, 1), value=v.bias**0.5) for t in (x1, z)
    )
    nngp, ntk = x1.new_empty(len(x1), len(z)), x1.new_empty(len(x1), len(z))
    for rows in spans(len(x1), _ROWS):
        if activation == "relu":
            nngp[rows], ntk[rows] = _relu_network(first[rows], second, v)
        else:
            dual = activation if callable(activation) else _DUALS[activation]
            nngp[rows], ntk[rows] = _network(first[rows], second, dual, v)
    return nngp, ntk


def _check(x1: Tensor, z: Tensor, activation: Activation | Dual, v: _Variances) -> None:
    if x1.ndim != 2 or z.ndim != 2 or x1.shape[1] != z.shape[1] or not x1.is_floating_point():
        raise InputError(f"Points must be two matrices [n, d] with one d, got {tuple(x1.shape)} and {tuple(z.shape)}.")
    if isinstance(v.depth, bool) or not isinstance(v.depth, int) or v.depth < 1:
        raise InputError(f"depth counts hidden layers and must be an integer of at least 1, got {v.depth!r}.")
    if not (v.weight > 0 and (v.output is None or v.output > 0) and v.bias >= 0 and math.isfinite(v.weight + v.bias)):
        raise InputError(
            f"weight_variance must be positive and bias_variance not negative, got {v.weight} and {v.bias}."
        )
    if not callable(activation) and activation not in get_args(Activation):
        names = ", ".join(get_args(Activation))
        raise InputError(f"activation {activation!r} has no closed form here; choose one of {names}.")


def _network(
    a: Float[Tensor, "n d1"], b: Float[Tensor, "m d1"], dual: Dual, v: _Variances
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    q1, q2, c = a.square().sum(1)[:, None], b.square().sum(1)[None], a @ b.T
    ntk = c
    for s_w in v.after():
        value, slope = dual(q1, q2, c)
        q1, q2 = (s_w * dual(q, q, q)[0] + v.bias for q in (q1, q2))
        c = s_w * value + v.bias
        ntk = c + s_w * slope * ntk
    return c, ntk


def _relu_network(
    a: Float[Tensor, "n d1"], b: Float[Tensor, "m d1"], v: _Variances
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    """E[phi phi] = sqrt(q1 q2) / 2 kappa(theta), E[phi' phi'] = (pi - theta) / (2 pi).

    The angle, not its cosine, is carried from layer to layer: arccos near 1 would cost half of the digits.
    """
    q1, q2, c = a.square().sum(1)[:, None], b.square().sum(1)[None], a @ b.T
    theta, ntk, s_b = _angle(a, b), c, v.bias
    for s_w in v.after():
        gap = 2 * (theta / 2).sin() ** 2 - _sin_minus(theta) / math.pi  # 1 - kappa(theta)
        r1, r2 = (s_w / 2 * q1).sqrt(), (s_w / 2 * q2).sqrt()
        slope = s_w * (math.pi - theta) / (2 * math.pi)
        q1, q2 = r1**2 + s_b, r2**2 + s_b
        norm = (q1 * q2).sqrt()
        c = r1 * r2 * (1 - gap) + s_b
        # norm - c without cancellation: norm - r1 r2 - s_b = s_b (r1 - r2)^2 / (norm + r1 r2 + s_b)
        short = s_b * (r1 - r2) ** 2 / (norm + r1 * r2 + s_b).clamp(min=1e-300) + r1 * r2 * gap
        theta = 2 * (short / (2 * norm).clamp(min=1e-300)).clamp(0, 1).sqrt().asin()
        ntk = c + slope * ntk
    return c, ntk


def _angle(a: Float[Tensor, "n d1"], b: Float[Tensor, "m d1"]) -> Float[Tensor, "n m"]:
    """Angles between rows, exact to rounding also near 0 and pi (Kahan): 2 atan2(|u - v|, |u + v|) of unit vectors."""
    u, v = torch.nn.functional.normalize(a), torch.nn.functional.normalize(b)
    mode = "donot_use_mm_for_euclid_dist"
    return 2 * torch.atan2(torch.cdist(u, v, compute_mode=mode), torch.cdist(u, -v, compute_mode=mode))


def _sin_minus(t: Tensor) -> Tensor:
    """sin(t) - t cos(t), by its series where the two terms cancel."""
    series = t**3 / 3 * (1 - t**2 / 10 * (1 - t**2 / 28 * (1 - t**2 / 54 * (1 - t**2 / 88))))
    return torch.where(t < 0.3, series, t.sin() - t * t.cos())


def _erf(q1: Tensor, q2: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    root = ((1 + 2 * q1) * (1 + 2 * q2) - 4 * c**2).sqrt()
    return 2 / math.pi * torch.atan2(2 * c, root), 4 / math.pi / root


def _gelu(q1: Tensor, q2: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """phi(u) = u Phi(u): Stein's lemma reduces E[phi phi] to E[Phi Phi] and E[Phi' Phi'].

    E[phi' phi'] is the derivative of E[phi phi] in c.
    """
    det = (1 + q1) * (1 + q2) - c**2
    both = 0.25 + torch.atan2(c, det.sqrt()) / (2 * math.pi)  # E[Phi(u) Phi(v)]
    density = 1 / (2 * math.pi * det.sqrt())  # E[Phi'(u) Phi'(v)]
    mix = 1 / (1 + q1) + 1 / (1 + q2) - 1
    rest = q1 * q2 + c**2 * mix
    return c * both + density * rest, both + density * c * (1 + 2 * mix + rest / det)


def _sine(q1: Tensor, q2: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    up, down = (c - (q1 + q2) / 2).exp() / 2, (-c - (q1 + q2) / 2).exp() / 2
    return up - down, up + down


def _identity(q1: Tensor, q2: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    return c, torch.ones_like(c)


_DUALS: dict[str, Dual] = {"erf": _erf, "gelu": _gelu, "sine": _sine, "identity": _identity}
