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
from spectrain.preconditioners.shards import modes_to_rows
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


def check_memory(network: nn.Module, k: int, dtype: torch.dtype | None, freed: int, shared: bool = False) -> None:
    """Refuse k modes of the network's parameters if they do not fit the free memory and the `freed` bytes.

    Where they are `shared`, each rank holds its part, and ranks on CPUs share one memory.

    Raises:
        InputError: saying how much is needed and which k fits.
    """
    seen = Network(network)
    P = sum(p.numel() for p in seen.params.values())
    stored, passing = (P * torch.empty(0, dtype=kind).element_size() for kind in (dtype or seen.dtype, seen.dtype))
    world = ranks.count(shared)
    free = free_bytes(seen.device) // (world if seen.device.type == "cpu" else 1) + freed
    stored = -(-stored // world)
    if k * stored + min(-(-k // world), MODES_AT_ONCE) * passing <= free:
        return
    fits = max(min(MODES_AT_ONCE, free // (stored + passing)), (free - MODES_AT_ONCE * passing) // stored)
    half = "" if dtype == torch.bfloat16 else "preconditioner.dtype=bfloat16 (half of the memory), or "
    raise InputError(
        f"preconditioner=parameter needs {k * stored / 2**30:.3g} GiB for {k} modes of {P:,} parameters"
        f"{' on each rank' if shared else ''}, and there are "
        f"{free / 2**30:.3g} GiB: k={max(0, fits)} fits. Take a smaller spectrum.rank, {half}preconditioner=sample."
    )


def pull_back(
    network: nn.Module, points: Any, Z: Float[Tensor, "mC k"], dtype: torch.dtype | None, shared: bool = False
) -> dict[Tensor, Tensor]:
    """U^T = Z^T J by parameter of the network: [k, p] in `dtype` (None: the network's, at least float32).

    Where it is `shared`, each rank pulls its part of the columns, and keeps its part of each parameter's entries.

    Raises:
        InputError: it failed on another rank.
    """
    seen = Network(network)
    k, m = Z.shape[1], rows_of(points)

    def own_modes() -> dict[str, Tensor]:
        mine = ranks.columns_of_ranks(k, shared)[ranks.my_rank(shared)]
        columns = Z.to(seen.device, seen.dtype).view(m, len(Z) // m, k)[:, :, mine]
        blocks = {
            name: torch.empty(columns.shape[2], p.numel(), dtype=dtype or seen.dtype, device=p.device)
            for name, p in seen.params.items()
        }
        for modes, parts in pull(seen, points, columns, MODES_AT_ONCE):
            for name, rows in parts.items():
                blocks[name][modes] = rows.reshape(len(rows), blocks[name].shape[1])
        return blocks

    with evaluating(network), undisturbed(seen):
        modes = ranks.together(own_modes, shared)
    # One by one, so that no rank holds its share twice.
    return {seen.originals[name]: modes_to_rows(modes.pop(name), k, shared) for name in list(modes)}
