"""From modes on the landmarks to directions in the parameters' space, u = J^T z.

Letters: m landmarks, C outputs, P parameters, k modes.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.kernels import empirical_ntk
from spectrain.kernels.memory import free_bytes
from spectrain.kernels.network import Network, rows_of, undisturbed
from spectrain.kernels.pull import pull
from spectrain.preconditioners import ranks
from spectrain.preconditioners.modes import evaluating
from spectrain.preconditioners.output_modes import output_count
from spectrain.spectrum import Spectrum

MODES_AT_ONCE = 16  # in the network's own precision, before they are rounded to U's


def full_spectrum(spectrum: Spectrum, points: Any, network: nn.Module, shared: bool = False) -> Spectrum:
    """As many modes of the full kernel K [mC, mC], rows (point, output), as `spectrum` has of the trace kernel.

    Eigenvalues are of K/m: where K = K_trace (x) I_C they are those of K_trace/m, each C times. One output needs no
    work; a spectrum that has mC rows already is taken as it is.
    """
    m, C, device = rows_of(points), output_count(network, points), Network(network).device
    if spectrum.n == m * C:
        return spectrum
    if spectrum.n != m:
        raise InputError(
            f"A spectrum of {spectrum.n} rows meets {m} landmarks and {C} outputs; it needs {m} or {m * C}."
        )
    size, free = (m * C) ** 2 * torch.finfo(spectrum.eigenvectors.dtype).bits // 8, free_bytes(device)
    if 2 * size > free:
        raise InputError(
            f"The full kernel of {m} landmarks with {C} outputs needs {2 * size / 2**30:.3g} GiB, and there are "
            f"{free / 2**30:.3g} GiB: take spectrum.subset_size={int((free / 2 / size) ** 0.5 * m)} or less, or "
            "preconditioner=sample."
        )
    with evaluating(network):
        K = empirical_ntk(network, points, outputs="full", process_group=ranks.group(shared))
    K = K.transpose(1, 2).reshape(m * C, m * C)
    # Warm: the modes of K_trace, once for each output.
    init = torch.kron(spectrum.eigenvectors, torch.eye(C).to(spectrum.eigenvectors))[:, : spectrum.rank]
    return ranks.same_spectrum(lambda: Spectrum.from_kernel(C * K, rank=spectrum.rank, init=init), shared)


def check_memory(network: nn.Module, k: int, dtype: torch.dtype | None, freed: int) -> None:
    """Refuse k modes of the network's parameters if they do not fit the free memory and the `freed` bytes.

    Raises:
        InputError: saying how much is needed and which k fits.
    """
    seen = Network(network)
    P = sum(p.numel() for p in seen.params.values())
    stored, passing = (P * torch.empty(0, dtype=kind).element_size() for kind in (dtype or seen.dtype, seen.dtype))
    free = free_bytes(seen.device) + freed
    if k * stored + min(k, MODES_AT_ONCE) * passing <= free:
        return
    fits = max(min(MODES_AT_ONCE, free // (stored + passing)), (free - MODES_AT_ONCE * passing) // stored)
    half = "" if dtype == torch.bfloat16 else "preconditioner.dtype=bfloat16 (half of the memory), or "
    raise InputError(
        f"preconditioner=parameter needs {k * stored / 2**30:.3g} GiB for {k} modes of {P:,} parameters, and there are "
        f"{free / 2**30:.3g} GiB: k={max(0, fits)} fits. Take a smaller spectrum.rank, {half}preconditioner=sample."
    )


def pull_back(
    network: nn.Module, points: Any, Z: Float[Tensor, "mC k"], dtype: torch.dtype | None, shared: bool = False
) -> dict[Tensor, Tensor]:
    """U^T = Z^T J by parameter of the network: [k, *shape] in `dtype` (None: the network's, at least float32).

    Where it is `shared`, each rank pulls its part of the columns, and all hold the same bits of all of them.
    """
    seen = Network(network)
    k, m = Z.shape[1], rows_of(points)
    blocks = {
        name: torch.empty(k, *p.shape, dtype=dtype or seen.dtype, device=p.device) for name, p in seen.params.items()
    }
    with evaluating(network), undisturbed(seen):
        columns = Z.to(seen.device, seen.dtype).view(m, len(Z) // m, k)
        parts_of_ranks = ranks.columns_of_ranks(k, shared)
        mine = parts_of_ranks[ranks.my_rank(shared)]
        for modes, parts in pull(seen, points, columns[:, :, mine], MODES_AT_ONCE):
            for name, rows in parts.items():
                blocks[name][mine][modes] = rows
    if shared:
        for block in blocks.values():
            for rank, modes in enumerate(parts_of_ranks):
                block[modes] = ranks.broadcast(block[modes], rank)
    return {seen.originals[name]: block for name, block in blocks.items()}
