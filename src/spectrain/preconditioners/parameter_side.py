"""P_u on the gradient of the parameters: the same preconditioner as S, seen from the weights.

Letters: n points, m landmarks, C outputs, P parameters, k modes; J [nC, P] the Jacobian of the outputs.

    J = sum_i sigma_i v_i u_i^T,   so   J^T S c = P_u J^T c,   P_u = I - sum_i d_i u_i u_i^T,   d = 1 - g(lambda)/lambda

with v_i the eigenvectors of the full kernel K = J J^T [nC, nC] and u_i = J^T v_i / sqrt(n lambda_i), orthonormal.

Several outputs: the two sides agree only for eigenvectors of the full kernel. If a symmetric P had P J^T = J^T S, then
J P J^T = K S would be symmetric, so S must commute with K; S (x) I_C, made of the trace kernel's eigenvectors, does so
only where K = K_trace (x) I_C, in the limit of infinite width. There k modes of the trace kernel are k C modes of the
full one. So this side always takes the top k modes of the full kernel: k columns, whatever C is.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from spectrain.errors import InputError
from spectrain.preconditioners import ranks
from spectrain.preconditioners.base import Preconditioner
from spectrain.preconditioners.landmarks import Landmarks
from spectrain.preconditioners.pullback import check_memory, full_spectrum, pull_back
from spectrain.preconditioners.sample_side import apply_sample
from spectrain.preconditioners.shards import gather_parts_, own_part, whole_on_first
from spectrain.spectral_maps import SpectralMap
from spectrain.spectrum import Spectrum

# What a mode may lose to those before it and still count: Cholesky's own loss of digits is then at most two.
NEW_PART = 0.1
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
COLUMNS_AT_ONCE = 2**16  # of a bfloat16 block, widened to float32 for a product


def apply_parameter(
    U: Float[Tensor, "P k"], ratio: Float[Tensor, " k"], gradient: Float[Tensor, "P"]
) -> Float[Tensor, "P"]:
    """``P_u g = g - U ((1 - ratio) * (U^T g))`` with ``ratio = g(lambda) / lambda``, in 4 P k flops.

    `U` has orthonormal columns u_i, so the eigenvalues of P_u are the ratios and 1. Source: MSK's S (Geifman et al.
    2024, arXiv 2307.14531) carried to the weights; EigenPro 2 (Ma and Belkin 2019) is its dual in a kernel machine.
    """
    return apply_sample(U, ratio, gradient)


class ParameterPreconditioner(Preconditioner):
    """Modified-spectrum preconditioner on the gradient of the parameters, for any loss, minibatch and optimizer.

    ::

        P = ParameterPreconditioner(spectral_maps.power(0.5))
        optimizer = P.wrap(torch.optim.SGD(model.parameters(), lr=0.1))
        optimizer.refresh(model, x)  # every so often: the kernel moves with the weights
        loss.backward()
        optimizer.step()  # the base optimizer, on P_u g in place of g

    Until the first refresh it is the identity. P_u does not depend on the batch, so a minibatch's gradient stays
    unbiased: E[P_u g] = P_u E[g]. U costs k x P numbers, kept once, in `dtype`: that of the network by default
    (at least float32), or "bfloat16" for half of the memory and more time per step. U is orthonormalised as stored,
    so 0 < P_u <= I (for a map that lowers) whatever was rounded. Modes that the map leaves alone take no memory.

    Where it is `shared`, each rank holds its part of U, k P / R numbers of R ranks, and a step sends k + P numbers: all
    ranks must then step together.

    U is part of the state of the optimizer that `wrap` returns, by position, as torch keeps its own.
    """

    def __init__(self, spectral_map: SpectralMap, dtype: torch.dtype | str | None = None) -> None:
        super().__init__(spectral_map)
        if isinstance(dtype, str):
            dtype = DTYPES.get(dtype, torch.int8)
        if dtype not in (None, *DTYPES.values()):
            raise InputError(f"preconditioner.dtype must be one of {', '.join(DTYPES)}, or null for the network's own.")
        self._dtype = dtype
        self.version = 0  # counts the spectra that were taken
        self._clear()

    def _clear(self) -> None:
        """The identity."""
        self._blocks: dict[Tensor, Tensor] = {}  # U^T by parameter [k, p], of which this rank's part
        self._whole: dict[Tensor, Tensor] = {}  # the same of all ranks, from `consolidate` to `saved`
        self._inverse = torch.zeros(0, 0)  # L^-1 [k, k] of U^T U = L L^T
        self._lowered = torch.zeros(0)  # d [k]

    @property
    def ready(self) -> bool:
        """Whether a spectrum has been taken, so that P_u is more than the identity."""
        return len(self._lowered) > 0

    @property
    def nbytes(self) -> int:
        """Memory of U on this rank."""
        return sum(block.nbytes for block in self._blocks.values())

    def wrap(self, optimizer: Optimizer) -> Optimizer:
        """`spectrain.ModifiedSpectrumOptimizer` around `optimizer`."""
        from spectrain.optim.modified_spectrum import ModifiedSpectrumOptimizer  # it imports this module

        return ModifiedSpectrumOptimizer(optimizer, self)

    def take(self, spectrum: Spectrum, landmarks: Landmarks, network: nn.Module, x: Any) -> None:
        """Pull the resolved modes on the landmarks back to the parameters, u_i = J^T v_i / sqrt(m lambda_i).

        The old U goes before the new one comes: they are never in memory together.

        Raises:
            InputError: the map's ratio is not finite and positive, or U does not fit the memory; the old U then stays.
                Or the pull-back failed; P_u is then the identity.
        """
        shared = self.shared = landmarks.shared
        spectrum = full_spectrum(spectrum, landmarks.points, network, shared)
        ratio = spectrum.ratio(self.spectral_map)
        kept = (ratio != 1).nonzero().squeeze(1)  # unresolved modes have ratio 1 too
        ranks.together(lambda: check_memory(network, len(kept), self._dtype, self.nbytes, shared), shared)
        self._clear()
        scale = (landmarks.count * spectrum.eigenvalues[kept]).sqrt()
        Z = spectrum.eigenvectors[:, kept] / scale
        try:
            blocks = pull_back(network, landmarks.points, Z, self._dtype, shared)
        except RuntimeError as error:  # such as out of memory; the old U went to make room
            raise InputError(
                f"U could not be computed: {error}. The parameters' gradient is left as it is until the next refresh."
            ) from error
        self._inverse = _inverse_factor(ranks.total(_gram(blocks.values(), len(kept)), shared))
        k = len(self._inverse)
        self._blocks = {p: block[:k] for p, block in blocks.items()}
        self._lowered = (1 - ratio[kept][:k]).to(self._inverse)
        self.version += 1

    @torch.no_grad()
    def apply_(self, parameters: Sequence[Tensor], vectors: Sequence[Tensor | None], *, root: bool = False) -> None:
        """Multiply a vector of the parameters' space, given by its parts, with P_u (or with its square root), in place.

        ``U = Q L^T`` as it is stored, so ``P_u = I - Q D Q^T = I - U L^-T D L^-1 U^T`` with D = diag(t d), t the
        strength. A part that is None counts as zero and stays None.

        Raises:
            InputError: none of the parameters is among those of the network of the last refresh, or shapes differ.
        """
        if not self.ready or self.strength == 0:
            return
        known = [(p, v) for p, v in zip(parameters, vectors, strict=True) if p in self._blocks]
        if not known:
            raise InputError(
                "The optimizer holds none of the parameters of the network that the preconditioner was refreshed on; "
                "refresh it on the network that is trained."
            )
        present = [(p, v, _entries(p, v)) for p, v in known if v is not None]
        parts = [(self._blocks[p], flat[own_part(len(flat), self.shared)]) for p, _, flat in present]
        coefficients = sum((_rows_times(block, part) for block, part in parts), torch.zeros_like(self._lowered))
        coefficients = ranks.total(coefficients, self.shared)
        D = self.strength * self._lowered
        D = 1 - (1 - D).sqrt() if root else D
        coefficients = self._inverse.T @ (D * (self._inverse @ coefficients))
        for block, part in parts:
            _subtract_columns(part, block, coefficients)
        gather_parts_([flat for _, _, flat in present], self.shared)
        for _, v, flat in present:
            if flat.data_ptr() != v.data_ptr():
                v.copy_(flat.view(v.shape))

    def consolidate(self, parameters: Iterable[Tensor]) -> None:
        """Gather U on rank 0, where the next `saved` has it; all ranks call this. Nothing to do for one process."""
        if self.shared and self.ready:
            whole = {p: whole_on_first(self._blocks[p], p.numel()) for p in parameters if p in self._blocks}
            self._whole = {p: block for p, block in whole.items() if block is not None}

    def saved(self, parameters: Iterable[Tensor]) -> dict[str, Any]:
        """U by the position of each parameter, tensors and primitives only; loads under ``weights_only=True``.

        Raises:
            InputError: U is shared over ranks, and was not gathered on this one.
        """
        blocks = self._whole if self.shared else self._blocks
        if self.ready and not blocks:
            raise InputError(
                "U is shared over ranks: call the optimizer's consolidate_state_dict() on all of them, and then "
                "state_dict() on rank 0."
            )
        self._whole = {}
        return {
            "blocks": [blocks[p].view(len(blocks[p]), *p.shape) if p in blocks else None for p in parameters],
            "inverse": self._inverse,
            "lowered": self._lowered,
            "strength": self.strength,
            "version": self.version,
            "refreshed": self.state_dict()["refreshed"],
        }

    def restore(self, parameters: Sequence[Tensor], saved: dict[str, Any]) -> None:
        """What `saved` returned, for parameters in the same order; with other ranks, or as many, or one process.

        Raises:
            InputError: it is that of another network.
        """
        blocks = saved["blocks"]
        if len(blocks) != len(parameters) or any(
            block is not None and block.shape[1:] != p.shape for p, block in zip(parameters, blocks, strict=True)
        ):
            raise InputError("The saved state of the preconditioner is that of a network with other parameters.")
        device = parameters[0].device
        self._blocks = {
            p: block.reshape(len(block), p.numel())[:, own_part(p.numel(), self.shared)].contiguous().to(p.device)
            for p, block in zip(parameters, blocks, strict=True)
            if block is not None
        }
        self._inverse, self._lowered = saved["inverse"].to(device), saved["lowered"].to(device)
        self.load_state_dict(saved)
        self.version = saved["version"]


def _entries(p: Tensor, v: Tensor) -> Float[Tensor, " p"]:
    """A vector's part of one parameter as it lies in memory, or a copy where that is not contiguous."""
    if v.shape != p.shape or v.layout != torch.strided:
        raise InputError(
            f"A gradient ({v.layout}) of shape {tuple(v.shape)} meets a parameter of shape {tuple(p.shape)}; "
            "preconditioner=parameter needs whole gradients, not sharded or sparse ones."
        )
    if v.requires_grad:
        raise InputError(
            "A gradient carries a graph (create_graph=True), as second-order optimizers such as Sophia and AdaHessian "
            "need it; preconditioner=parameter would change it in place. Take preconditioner=sample with them."
        )
    return v.reshape(-1)


def _pieces(block: Float[Tensor, "k p"]) -> Iterable[tuple[slice, Tensor]]:
    """The block in a dtype to compute in: itself, or widened a few columns at a time."""
    if block.dtype != torch.bfloat16:
        yield slice(None), block
        return
    for start in range(0, block.shape[1], COLUMNS_AT_ONCE):
        columns = slice(start, start + COLUMNS_AT_ONCE)
        yield columns, block[:, columns].float()


def _gram(blocks: Iterable[Tensor], k: int) -> Float[Tensor, "k k"]:
    """U^T U in float64 (summed over pieces that are multiplied in their own precision)."""
    gram = None
    for block in blocks:
        for _, piece in _pieces(block):
            product = (piece @ piece.T).double()
            gram = product if gram is None else gram + product
    return torch.zeros(k, k, dtype=torch.float64) if gram is None else gram


def _inverse_factor(gram: Float[Tensor, "k k"]) -> Float[Tensor, "q q"]:
    """L^-1 with ``gram = L L^T``, of the leading q modes: up to the first that rounding made dependent on others."""
    L, failed_at = torch.linalg.cholesky_ex(gram)
    L = L[: int(failed_at) - 1, : int(failed_at) - 1] if int(failed_at) else L
    q = int((L.diagonal() > NEW_PART).long().cumprod(0).sum())
    inverse: Tensor = torch.linalg.solve_triangular(L[:q, :q], torch.eye(q).to(L), upper=False)
    return inverse


def _rows_times(block: Float[Tensor, "k p"], v: Float[Tensor, " p"]) -> Float[Tensor, " k"]:
    """U^T v, the part of one parameter, in float64."""
    products = [(piece @ v[columns].to(piece.dtype)).double() for columns, piece in _pieces(block)]
    return sum(products, torch.zeros(len(block), dtype=torch.float64, device=block.device))


def _subtract_columns(v: Float[Tensor, " p"], block: Float[Tensor, "k p"], coefficients: Float[Tensor, " k"]) -> None:
    """v -= U coefficients, in place."""
    for columns, piece in _pieces(block):
        v[columns].sub_((piece.T @ coefficients.to(piece.dtype)).to(v.dtype))
