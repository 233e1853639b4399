"""The kernel as a linear operator: products K v without K.

Legend: n, m points; C outputs, E = C for the full kernel and 1 otherwise; k columns, p parameters of one layer.

    K v = J1 (J2^T v):  pull, g = sum_j v_j G_j;  push, (K v)_i = G_i . g,  with G factored, or by vjp and jvp without
    a rule
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.kernels.autodiff import jvp, vjp
from spectrain.kernels.blocks import Side
from spectrain.kernels.capture import Factors
from spectrain.kernels.empirical import Method, Outputs, Params
from spectrain.kernels.factors import Factor
from spectrain.kernels.gram import spans
from spectrain.kernels.memory import budget_bytes
from spectrain.kernels.network import Inputs, Network, rows_of, take_rows, undisturbed
from spectrain.kernels.planning import look
from spectrain.kernels.progress import Progress
from spectrain.kernels.uses import Names

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


class NTKOperator:
    """The empirical NTK of a module as a linear operator; arguments as for `empirical_ntk`.

    `operator @ v` takes [m E] or [m E, k]; for outputs="full" rows are (point, output) pairs, the output running
    faster. Factors are computed once and kept if they fit the budget, and block by block at every product if not. The
    operator is that of the parameters at the time it is made. `progress` is shown of a product over two seconds.
    `shape`, `dtype`, `device`, `T`, `diagonal()`, `to_scipy()`. Raises InputError as `empirical_ntk` does.
    """

    def __init__(
        self,
        module: nn.Module,
        x1: Inputs,
        x2: Inputs | None = None,
        *,
        outputs: Outputs = "trace",
        method: Method = "auto",
        params: Params | None = None,
        dtype: torch.dtype | None = None,
        memory_budget: int | float | str | None = None,
        progress: bool = True,
    ) -> None:
        self._network = Network(module, params=params, dtype=dtype)
        self._network.freeze()
        self._inputs, self._show = (x1, x1 if x2 is None else x2), progress
        self._symmetric = x2 is None
        with undisturbed(self._network):
            budget = budget_bytes(memory_budget, self._network.device)
            rest = frozenset(self._network.params) if method == "jacobian" else frozenset[str]()
            probe = max(self._inputs, key=rows_of)
            self._look = look(self._network, probe, outputs, rest, strict=method == "layerwise")
        self._E = self._look.C if outputs == "full" else 1
        self._C = 1 if outputs == "sum" else self._look.C
        quiet = Progress("", 1, show=False)
        half = budget // 2
        left, right = (Side(self._network, x, self._look, half // 2, quiet, explicit=False) for x in self._inputs)
        self._sides = (left, left if self._symmetric else right)
        points = max(1, half // max(1, self._look.costs.factors))
        fits = points >= sum(side.n for side in set(self._sides))
        self._block = max(side.n for side in self._sides) if fits else max(1, points // len(set(self._sides)))
        self._columns = max(1, half // 2 // max(1, self._parameter_bytes() * self._C // self._E))

    def _parameter_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self._network.params.values())

    @property
    def shape(self) -> tuple[int, int]:
        """(n E, m E)."""
        return self._sides[0].n * self._E, self._sides[1].n * self._E

    @property
    def dtype(self) -> torch.dtype:
        """The dtype it computes in."""
        return self._network.dtype

    @property
    def device(self) -> torch.device:
        """The device it computes on."""
        return self._network.device

    @property
    def T(self) -> "NTKOperator":  # noqa: N802
        """The transpose."""
        other = copy(self)
        other._sides, other._inputs = self._sides[::-1], self._inputs[::-1]
        return other

    def __matmul__(self, v: Tensor) -> Tensor:
        """K v for a vector [m E] or a matrix [m E, k]."""
        if v.ndim not in (1, 2) or v.shape[0] != self.shape[1]:
            raise InputError(f"The kernel has shape {self.shape}; it cannot be applied to shape {tuple(v.shape)}.")
        columns = v.detach().to(self.device, self.dtype).reshape(v.shape[0], -1)
        bar = self._bar("kernel product", columns.shape[1])
        try:
            with undisturbed(self._network):
                parts = [self._product(columns[:, k], bar) for k in spans(columns.shape[1], self._columns)]
        finally:
            bar.close()
        return torch.cat(parts, 1).reshape(self.shape[0], *v.shape[1:])

    def matvec(self, v: Float[Tensor, " mE"]) -> Float[Tensor, " nE"]:
        """K v."""
        return self @ v

    def matmat(self, v: Float[Tensor, "mE k"]) -> Float[Tensor, "nE k"]:
        """K V."""
        return self @ v

    def diagonal(self) -> Float[Tensor, " nE"]:
        """The diagonal of K, for x2=None and where every parameter has a rule."""
        if not self._symmetric or self._look.plan.rest:
            raise InputError(
                "diagonal needs x2=None and a rule for every parameter; take it from empirical_ntk instead."
            )
        with undisturbed(self._network):
            bar = Progress("kernel diagonal", self._sides[0].n, show=self._show)
            try:
                blocks = [sum(f.squares() for f in factors.values()) for _, factors in self._factors(0, bar, 1)]
            finally:
                bar.close()
        squares = torch.cat([block for block in blocks if isinstance(block, Tensor)])
        return squares.flatten() if self._E > 1 else squares.sum(1)

    def to_scipy(self) -> "LinearOperator":
        """The same operator for scipy.sparse.linalg (eigsh, cg, ...), which sees numpy arrays."""
        from scipy.sparse.linalg import LinearOperator

        def numpy(operator: "NTKOperator") -> Callable[..., object]:
            return lambda v: (operator @ torch.as_tensor(v)).cpu().numpy()

        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        forward, backward = numpy(self), numpy(self.T)
        return LinearOperator(
            self.shape, matvec=forward, matmat=forward, rmatvec=backward, rmatmat=backward, dtype=dtype
        )

    def _bar(self, title: str, columns: int) -> Progress:
        """Counts points times columns: both sides once by the layers' factors, and once per output by autodiff."""
        rest = len(self._look.plan.rest)
        passes = (rest < len(self._network.params)) + (rest > 0) * self._C // self._E
        return Progress(title, columns * passes * sum(side.n for side in self._sides), show=self._show)

    def _factors(self, side: int, bar: Progress, columns: int) -> Iterator[tuple[slice, Factors]]:
        for rows in spans(self._sides[side].n, self._block):
            yield rows, self._sides[side].factors(rows)
            bar.add(columns * (rows.stop - rows.start))

    def _product(self, v: Float[Tensor, "mE k"], bar: Progress) -> Float[Tensor, "nE k"]:
        """The full kernel pulls all outputs into one gradient; the trace keeps one per output."""
        v = v.view(-1, self._E, v.shape[1])
        out = v.new_zeros(self._sides[0].n, self._E, v.shape[2])
        groups = [range(self._C)] if self._E > 1 else [range(c, c + 1) for c in range(self._C)]
        if len(self._look.plan.rest) < len(self._network.params):
            pulled = _pull(self._factors(1, bar, v.shape[2]), v, groups)
            for rows, factors in self._factors(0, bar, v.shape[2]):
                for names, gradients in pulled.items():
                    for outputs, g in zip(groups, gradients, strict=True):
                        out[rows] += _only(factors[names], outputs).push(g) if names in factors else 0
        if self._look.plan.rest:
            for outputs in groups:
                self._product_by_autodiff(v, out, outputs, bar)
        return out.flatten(0, 1)

    def _product_by_autodiff(
        self, v: Float[Tensor, "m E k"], out: Float[Tensor, "n E k"], outputs: range, bar: Progress
    ) -> None:
        plan, batch = self._look.plan, self._block
        for k in range(v.shape[2]):
            parts = (
                (self._network.inputs(take_rows(self._inputs[1], j)), v[j, :, k]) for j in spans(v.shape[0], batch)
            )
            g = vjp(self._network, plan, parts, outputs)
            bar.add(v.shape[0])
            for i in spans(out.shape[0], batch):
                x = self._network.inputs(take_rows(self._inputs[0], i))
                out[i, :, k] += jvp(self._network, plan, x, g, outputs)
                bar.add(i.stop - i.start)


def _only(factor: Factor, outputs: range) -> Factor:
    """The factor of these outputs, all of them or one."""
    return factor if len(outputs) == factor.C else factor.output(outputs.start)


def _pull(
    blocks: Iterable[tuple[slice, Factors]], v: Float[Tensor, "m E k"], groups: Sequence[range]
) -> dict[Names, list[Float[Tensor, "k p"]]]:
    """g = J2^T v of every layer, for every group of outputs."""
    pulled: dict[Names, list[Tensor]] = {}
    for rows, factors in blocks:
        for names, factor in factors.items():
            new = [_only(factor, outputs).pull(v[rows]) for outputs in groups]
            pulled[names] = [a + b for a, b in zip(pulled[names], new, strict=True)] if names in pulled else new
    return pulled
