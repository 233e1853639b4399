"""S on the gradient at the network's output: the forward pass stays the identity, the loss stays the true loss.

Shapes: N training points, n points of a batch, C outputs, k modes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from spectrain.errors import InputError
from spectrain.preconditioners import guest
from spectrain.preconditioners.base import Preconditioner
from spectrain.preconditioners.landmarks import Landmarks
from spectrain.preconditioners.modes import stamp
from spectrain.preconditioners.output_modes import OUTPUTS, Curvature, modes_of_each, modes_of_full, output_count
from spectrain.preconditioners.row_factors import RowFactors, curved_factors, row_factors
from spectrain.spectral_maps import SpectralMap
from spectrain.spectrum import Spectrum
from spectrain.spectrum.solvers import random_block


def apply_sample(
    eigenvectors: Float[Tensor, "n k"], ratio: Float[Tensor, " k"], c: Float[Tensor, "n *C"]
) -> Float[Tensor, "n *C"]:
    """``S c = c - V ((1 - ratio) * (V^T c))`` with ``ratio = g(lambda) / lambda``, in O(n k C).

    `eigenvectors` V has orthonormal columns; S is symmetric positive definite exactly when every ratio is positive.
    Source: Geifman et al. 2024 (arXiv 2307.14531), section 4.
    """
    S = RowFactors(eigenvectors, eigenvectors, 1 - ratio)
    return S.apply(c.reshape(len(c), -1), 1.0).reshape(c.shape)


class SamplePreconditioner(Preconditioner):
    """Modified-spectrum preconditioner on the sample side, for any network, loss and optimizer.

    ::

        S = SamplePreconditioner(spectral_maps.power(0.5))
        S.refresh(model, x)  # every so often: the kernel moves with the weights
        loss = criterion(S(model(x)), y)  # loss of model(x), gradient of the output multiplied by S

    Until the first `refresh` or `update` it is the identity. `update` takes eigenvectors at all N training points; a
    minibatch names its rows by `index`, and S is built from those rows, orthonormalised in the order of the modes.
    `attach` and `attached` do the second line by a hook on a module's output.

    Args:
        spectral_map: g.
        outputs: the kernel of a network with C outputs. "trace": one for all, ``(1/C) sum_c J_c J_c^T``, S (x) I.
            "each": every output its own, ``J_c J_c^T``. "full": [N C, N C], with what the outputs share.
        curvature: with outputs="full", the loss's Hessian in the outputs, [n, C] -> [n, C, C], such as
            `softmax_hessian` for cross-entropy; the map then acts on ``H^1/2 K H^1/2``, see `output_modes`.
    """

    def __init__(self, spectral_map: SpectralMap, outputs: str = "trace", curvature: Curvature | None = None) -> None:
        super().__init__(spectral_map)
        if outputs not in OUTPUTS:
            raise InputError(f"outputs={outputs!r} is not known; allowed: {', '.join(OUTPUTS)}.")
        if curvature is not None and outputs != "full":
            raise InputError(f"curvature acts between outputs and needs outputs='full'; {outputs!r} was given.")
        self.outputs, self.curvature = outputs, curvature
        self.index: Tensor | None = None  # rows of the next batch, for an attached S
        # For each kernel: eigenvectors [N, k] ([N C, k] for the full one) and ratio [k].
        self._blocks: list[tuple[Tensor, Tensor]] = []
        self._fingerprint: list[str] | None = None  # of the network that the spectrum is of
        self._C: int | None = None
        self._last: tuple[stamp, list[RowFactors]] | None = None  # an index and its factors
        self._own: tuple[list[float], list[Spectrum]] | None = None  # as `_last_refresh`, of each or the full kernel
        self.watch = guest.Watch()

    @property
    def ready(self) -> bool:
        """Whether an `update` has been made, so that S is more than the identity."""
        return bool(self._blocks)

    def update(self, spectrum: Spectrum | Sequence[Spectrum], *, dtype: torch.dtype = torch.float32) -> None:
        """Take a new spectrum, whose eigenvectors have one row for each of the N training points.

        With outputs="each" it is one spectrum per output, with "full" a row is a (point, output) pair. The spectral map
        acts on the resolved modes only. S works in `dtype`.

        Raises:
            InputError: eigenpairs that are not finite or not orthonormal, or a ratio that is not finite and positive;
                the old S then stays.
        """
        spectra = [spectrum] if isinstance(spectrum, Spectrum) else list(spectrum)
        if self.curvature is None:
            for one in spectra:
                _check_orthonormal(one)
        blocks = [_block(one, self.spectral_map, dtype) for one in spectra]
        self._blocks, self._last, self._C, self._fingerprint = blocks, None, None, None

    def take(self, spectrum: Spectrum, landmarks: Landmarks, network: nn.Module, x: Any) -> None:
        """Extend the modes from the landmarks to all training points, and `update` with them, in float32 at least.

        `spectrum` is that of the trace kernel; for other outputs the kernel they need is computed here.
        """
        floating = [leaf.dtype for leaf in tree_leaves(x) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        dtype = torch.promote_types(floating[0] if floating else torch.float32, torch.float32)
        C, marks = self._C, guest.fingerprint(network)
        if C is None or marks != self._fingerprint:
            C = output_count(network, x)
        self.update(self._extended(spectrum, landmarks, network, x, dtype), dtype=dtype)
        self._C, self._fingerprint = C, marks
        self.watch.forget_network()
        self.watch.refreshed(network)

    def _extended(
        self, spectrum: Spectrum, landmarks: Landmarks, network: nn.Module, x: Any, dtype: torch.dtype
    ) -> list[Spectrum]:
        if self.outputs == "trace":
            return [landmarks.extend(spectrum, x, network, dtype)]
        before = self._own[1] if self._own is not None and self._own[0] == landmarks.moments else []
        rank = spectrum.rank
        init = [one.eigenvectors for one in before] if before and all(one.rank >= rank for one in before) else None
        if self.outputs == "each":
            own, extended = modes_of_each(landmarks, network, x, rank, init)
        else:
            one, everywhere = modes_of_full(landmarks, network, x, rank, init[0] if init else None, self.curvature)
            own, extended = [one], [everywhere]
        self._own = (landmarks.moments, own)
        return extended

    def attach(self, module: nn.Module) -> RemovableHandle:
        """Do ``S(output, S.index)`` on every output of `module` in training mode, until ``handle.remove()``.

        Set ``S.index`` before each minibatch; it is used once. Full batches need none.

        Raises:
            InputError: a preconditioner is attached there already, or S holds the spectrum of another network.
        """
        guest.refuse_a_second(module, self)
        self._check_network(module)
        hook = guest.OutputHook(self)
        self.watch.hooked(module, hook)
        return module.register_forward_hook(hook)

    @contextmanager
    def attached(self, module: nn.Module, index: Integer[Tensor, " n"] | None = None) -> Iterator[Self]:
        """`attach` for the time of a ``with`` block; `index` is that of the batch."""
        handle = self.attach(module)
        self.index = index
        try:
            yield self
            self.watch.left()
        finally:
            handle.remove()
            self.index = None

    def run(self, network: nn.Module, x: Any, index: Tensor | None = None) -> Tensor:
        """``self(network(x), index)``, if the spectrum is that of this network."""
        self._check_network(network)
        return self(network(x), index)

    def discard(self) -> None:
        """No backward pass will come to what S returned last."""
        self.watch.discarded()

    def __call__(self, output: Float[Tensor, "n *C"], index: Integer[Tensor, " n"] | None = None) -> Tensor:
        """Return `output` unchanged; in the backward pass its gradient c becomes S c.

        `index` holds each sample's row among the N training points; None means that the batch is all of them, in order.
        A backward pass that reaches `output` past the result warns: the loss does not use it.

        Raises:
            InputError: the batch does not fit the spectrum's points or outputs, or was wrapped already.
        """
        if not self._blocks or not output.requires_grad:
            return output
        self.watch.refuse_wrapped(output)
        self._move_to(output.device)
        full_precision = torch.autocast(output.device.type, enabled=False)
        with full_precision, torch.no_grad():
            factors = self._factors(output, index)
        strength = self.strength

        def precondition(c: Tensor) -> Tensor:
            columns = c.reshape(len(c), -1).to(factors[0].removed)
            with full_precision:
                return self._apply(factors, columns, strength).reshape(c.shape).to(c.dtype)

        wrapped = output.view_as(output)  # the hook must not reach whatever else uses `output`
        self.watch.over(output, wrapped, precondition)
        return wrapped

    def _apply(self, factors: list[RowFactors], c: Float[Tensor, "n C"], strength: float) -> Float[Tensor, "n C"]:
        if self.outputs == "each":
            return torch.cat([S.apply(c[:, j : j + 1], strength) for j, S in enumerate(factors)], 1)
        return factors[0].apply(c.reshape(-1, 1) if self.outputs == "full" else c, strength).reshape(c.shape)

    def _factors(self, output: Tensor, index: Tensor | None) -> list[RowFactors]:
        """S of every kernel on the rows of the batch, on the output's device."""
        C = output[0].numel() if len(output) else 0
        N = self._points(C)
        if index is None and len(output) != N:
            raise InputError(
                f"A batch of {len(output)} rows meets a spectrum of {N} training points: "
                "pass each sample's row among them, S(output, index)."
            )
        if index is not None and len(index) != len(output):
            raise InputError(f"index has {len(index)} entries for a batch of {len(output)} rows; it needs one per row.")
        now = stamp(index)
        # A full batch sends the same tensor at every step.
        if self._last is not None and self._last[0] == now and self.curvature is None:
            return self._last[1]
        if index is not None:
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < N:
                raise InputError(
                    f"index reaches from {int(index.min())} to {int(index.max())}; "
                    f"the spectrum has rows 0 to {N - 1}, one per training point."
                )
            index = index.to(output.device)
        H = (
            None
            if self.curvature is None
            else self.curvature(output.detach().reshape(len(output), -1).to(self._blocks[0][0]))
        )
        shared = self.shared and index is not None
        factors = [_on_rows(table, ratio, N, index, H, shared) for table, ratio in self._blocks]
        self._last = (now, factors)
        return factors

    def _points(self, C: int) -> int:
        """N, if the spectrum is one of C outputs."""
        rows = len(self._blocks[0][0])
        expected = len(self._blocks) if self.outputs == "each" else self._C
        if (C and expected not in (None, C)) or (self.outputs == "full" and C and rows % C):
            raise InputError(
                f"The spectrum is that of a network with {expected or 'other'} outputs, and this batch has {C}: "
                "refresh S with the network that is trained."
            )
        return rows // C if self.outputs == "full" and C else rows

    def _check_network(self, network: nn.Module) -> None:
        if self._fingerprint is not None:
            self.watch.check_network(network, self._fingerprint)

    def _move_to(self, device: torch.device) -> None:
        if device.type == "meta":
            raise InputError("The batch is on the device 'meta', which holds no numbers; move the network to another.")
        if self._blocks[0][0].device != device:
            self._blocks = [(table.to(device), ratio.to(device)) for table, ratio in self._blocks]
            self._last = None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and primitives only; loads under ``weights_only=True``."""
        own = self._own
        return super().state_dict() | {
            "eigenvectors": [table for table, _ in self._blocks],
            "ratio": [ratio for _, ratio in self._blocks],
            "fingerprint": self._fingerprint,
            "outputs": self._C,
            "own": None if own is None else {"points": own[0], "spectra": [one.state_dict() for one in own[1]]},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> Self:
        """Restore what `state_dict` returned."""
        self._blocks = list(zip(state_dict["eigenvectors"], state_dict["ratio"], strict=True))
        self._fingerprint, self._C = state_dict["fingerprint"], state_dict["outputs"]
        self._last, own = None, state_dict["own"]
        self._own = None if own is None else (own["points"], [Spectrum.from_state_dict(one) for one in own["spectra"]])
        self.watch.forget_network()
        return super().load_state_dict(state_dict)


def _block(spectrum: Spectrum, spectral_map: SpectralMap, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    for name, values in (("eigenvalues", spectrum.eigenvalues), ("eigenvectors", spectrum.eigenvectors)):
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"The spectrum's {name} are not all finite; S keeps what it had. Compute it anew.")
    # By rows: those of a batch are gathered seven times faster than from a table that lies by columns.
    table = spectrum.eigenvectors.to(dtype).contiguous()
    return table, spectrum.ratio(spectral_map).to(table)


def _check_orthonormal(spectrum: Spectrum) -> None:
    """V^T V z = z for a random z: S = I - V diag(1 - ratio) V^T could have negative eigenvalues otherwise."""
    V = spectrum.eigenvectors
    z = random_block(V.shape[1], 1, V.device).to(V)
    if float((V.T @ (V @ z) - z).norm() / z.norm()) > 1e-3:
        raise InputError(
            "The spectrum's eigenvectors are not orthonormal, and S might not be positive definite; "
            "use Spectrum.from_kernel, or orthonormal_columns."
        )


def _on_rows(table: Tensor, ratio: Tensor, N: int, index: Tensor | None, H: Tensor | None, shared: bool) -> RowFactors:
    """S of one kernel on the rows of a batch."""
    rows = table
    if index is not None:
        per_point = table.reshape(N, -1, table.shape[1])
        rows = per_point.flatten(1)[index].reshape(-1, table.shape[1])
    if H is not None:
        return curved_factors(rows, H.to(rows), ratio, shared)
    return RowFactors(rows, rows, 1 - ratio) if index is None else row_factors(rows, ratio, shared)
