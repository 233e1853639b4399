"""Spectra of a network with several outputs: one kernel each, the full kernel, and the kernel that a loss sees.

Shapes: N training points, m landmarks, C outputs, k modes. Rows of the full kernel are (point, output) pairs, the
output faster.

The matched choice for a loss whose Hessian in the outputs is H, [C, C] for each point (cross-entropy:
``diag(p) - p p^T``): near the present weights c = dL/df changes as ``c' = -H K S c``. With ``c = H^1/2 u`` and
``M = H^1/2 K H^1/2 = Q (n Lambda) Q^T``, the choice ``S_H = H^1/2 (I - Q (I - g(Lambda)/Lambda) Q^T) H^+1/2`` gives
``u' = -g(M) u``. With ``Z = K H^1/2 Q / (n Lambda)``, for which ``H^1/2 Z = Q``, it needs neither root nor inverse,

    S_H = I - H Z diag(1 - ratio) Z^T    on c orthogonal to the null space of H,

as softmax gradients are; elsewhere S_H is still invertible, with the eigenvalues 1 and ratio. Z is defined at any
point. ``J^T S_H c = P J^T c`` with P symmetric positive definite, so a stationary point stays one: the geometry of
Gauss-Newton.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.kernels.network import Network, take_rows, undisturbed, unwrap
from spectrain.preconditioners.landmarks import Landmarks, resolved_modes
from spectrain.preconditioners.modes import evaluating
from spectrain.preconditioners.orthonormal import orthonormal_columns
from spectrain.spectrum import Spectrum

OUTPUTS = ("trace", "each", "full")
Curvature = Callable[[Tensor], Tensor]  # outputs [n, C] -> H [n, C, C], symmetric positive semi-definite


def softmax_hessian(output: Float[Tensor, "n C"]) -> Float[Tensor, "n C C"]:
    """``H = diag(p) - p p^T``, the Hessian of the cross-entropy in the logits; p = softmax(output)."""
    p = output.softmax(1)
    pairs = p[:, :, None] * p[:, None, :]
    pairs = pairs - torch.diag_embed(pairs.diagonal(dim1=1, dim2=2))
    return torch.diag_embed(pairs.sum(2)) - pairs  # p_i (1 - p_i) without the cancellation at p_i near 1


class OneOutput(nn.Module):
    """Column c of a network's outputs."""

    def __init__(self, network: nn.Module, c: int) -> None:
        super().__init__()
        self.network, self._c = network, c

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """[n, 1]."""
        output: Tensor = self.network(*args, **kwargs)
        return output.reshape(len(output), -1)[:, self._c : self._c + 1]


def outputs_at(network: nn.Module, x: Any) -> Float[Tensor, "n C"]:
    """The network's outputs in evaluation mode, in the precision of the kernel."""
    called = Network(network)
    with evaluating(network), undisturbed(called), torch.no_grad():
        return called(called.params, called.inputs(x))


def output_count(network: nn.Module, x: Any) -> int:
    """C."""
    return outputs_at(network, take_rows(x, slice(0, 1))).shape[1]


def modes_of_each(
    landmarks: Landmarks, network: nn.Module, x: Any, rank: int, init: Sequence[Tensor] | None
) -> tuple[list[Spectrum], list[Spectrum]]:
    """The spectrum of every output's own kernel ``K_c = J_c J_c^T``: on the landmarks, and at all points x."""
    own, extended = [], []
    for c in range(output_count(network, x)):
        column = OneOutput(unwrap(network), c)
        own.append(landmarks.spectrum(column, rank, init[c] if init else None))
        extended.append(landmarks.extend(own[-1], x, column))
    return own, extended


def modes_of_full(
    landmarks: Landmarks,
    network: nn.Module,
    x: Any,
    rank: int,
    init: Tensor | None,
    curvature: Curvature | None,
) -> tuple[Spectrum, Spectrum]:
    """The spectrum of the full kernel, or of ``H^1/2 K H^1/2``: on the landmarks, and at all points x (V, or Z)."""
    K = landmarks.kernel(network, "full")
    roots = None if curvature is None else _roots(_checked_hessian(curvature, outputs_at(network, landmarks.points)))
    spectrum = landmarks.modes(K if roots is None else _both_sides(roots.to(K), K), rank, init)
    if landmarks.extension == "exact" and roots is None:
        return spectrum, spectrum
    if landmarks.extension == "interpolate" and roots is None:
        return spectrum, replace(spectrum, eigenvectors=landmarks.interpolated_modes(spectrum.eigenvectors, x))
    kept = resolved_modes(spectrum)
    basis = kept.eigenvectors / (len(K) * kept.eigenvalues)
    if roots is not None:
        basis = _times(roots.to(basis), basis)
    if landmarks.extension == "nystrom":
        values = landmarks.nystrom(network, x, basis, "full")
    else:
        values = K.to(basis) @ basis
        if landmarks.extension == "interpolate":
            values = landmarks.interpolate(values.reshape(landmarks.count, -1), x).reshape(-1, values.shape[1])
    return spectrum, replace(kept, eigenvectors=values if roots is not None else orthonormal_columns(values))


def _checked_hessian(curvature: Curvature, f: Float[Tensor, "m C"]) -> Float[Tensor, "m C C"]:
    H = curvature(f)
    if H.shape != (*f.shape, f.shape[1]) or not bool(torch.isfinite(H).all()):
        raise InputError(
            f"curvature returned shape {tuple(H.shape)} for outputs of shape {tuple(f.shape)}, or numbers that are not "
            "finite; it must return the loss's Hessian, [n, C, C]."
        )
    return H


def _roots(H: Float[Tensor, "m C C"]) -> Float[Tensor, "m C C"]:
    values, vectors = torch.linalg.eigh(H.double())
    roots: Tensor = vectors * values.clamp(min=0).sqrt()[:, None, :] @ vectors.mT
    return roots


def _times(blocks: Float[Tensor, "m C C"], X: Float[Tensor, "mC q"]) -> Float[Tensor, "mC q"]:
    """The block-diagonal matrix times X."""
    return (blocks @ X.reshape(len(blocks), blocks.shape[1], -1)).reshape(X.shape)


def _both_sides(roots: Float[Tensor, "m C C"], K: Float[Tensor, "mC mC"]) -> Float[Tensor, "mC mC"]:
    return _times(roots, _times(roots, K).T.contiguous())
