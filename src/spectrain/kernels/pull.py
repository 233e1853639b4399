"""J^T Z of every parameter for many columns: one pass of the network, then products of its layers' factors.

Legend: n points, C outputs, k columns.
"""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

from spectrain.kernels.autodiff import vjp
from spectrain.kernels.blocks import Side
from spectrain.kernels.capture import UnknownUseError
from spectrain.kernels.gram import spans
from spectrain.kernels.memory import budget_bytes
from spectrain.kernels.network import Inputs, Network, take_rows
from spectrain.kernels.planning import Look, look, widened
from spectrain.kernels.progress import Progress


def pull(
    network: Network, x: Inputs, Z: Float[Tensor, "n C k"], columns_at_once: int
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """sum_ic Z[i, c] d f_c(x_i) / dw by the parameter's name, [columns, *shape], for some columns of Z after others.

    A backward pass for each column would compute the gradients of the layers' inputs again, which only scale with the
    column: the factors of one pass hold them, and half of the work is left. Parameters without a rule take that way.
    Columns may come again, where the data show a use that the first look did not: the last ones count.
    """
    rest = frozenset[str]()
    while True:
        try:
            yield from _pull(network, x, Z, _look(network, x, rest), columns_at_once)
            return
        except UnknownUseError as found:
            rest = widened(rest, found, strict=False)


def _look(network: Network, x: Inputs, rest: frozenset[str]) -> Look:
    """Factors whose columns are in the parameter's own order; those of a grouped convolution are not."""
    seen = look(network, x, "full", rest, strict=False, apart=True)
    grouped = {name for (name,), factor in seen.sample.items() if factor.sizes.groups > 1}
    return look(network, x, "full", rest | grouped, strict=False, apart=True) if grouped else seen


def _pull(
    network: Network, x: Inputs, Z: Float[Tensor, "n C k"], seen: Look, columns_at_once: int
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    budget = budget_bytes(None, network.device) // 4
    side = Side(network, x, seen, budget, Progress("", 1, show=False), explicit=False)
    blocks = spans(len(Z), max(1, budget // max(1, seen.costs.factors)))
    for columns in spans(Z.shape[2], columns_at_once):
        z = Z[:, :, columns.start : columns.stop]
        total = {name: p.new_zeros(z.shape[2], *p.shape, requires_grad=False) for name, p in network.params.items()}
        for rows in blocks:
            for (name,), factor in side.factors(rows).items():  # kept, where there is one block of them
                total[name] += factor.pull(z[rows]).view_as(total[name])
        if seen.plan.rest:
            for i in range(z.shape[2]):
                parts = ((network.inputs(take_rows(x, rows)), z[rows, :, i]) for rows in blocks)
                for name, g in vjp(network, seen.plan, parts, range(seen.C)).items():
                    total[name][i] = g
        yield slice(columns.start, columns.stop), total
