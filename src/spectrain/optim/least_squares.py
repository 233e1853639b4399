"""Least squares of a network on data, as Gauss-Newton takes it: the residuals, and their Jacobian by layers.

Legend: n points, C outputs, P parameters.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from spectrain.errors import InputError
from spectrain.kernels.capture import UnknownUseError, assemble, output_gradients, planned
from spectrain.kernels.checks import check_mode
from spectrain.kernels.factors import Index
from spectrain.kernels.jacobian import jacobian_factors
from spectrain.kernels.network import Inputs, Network, arguments, undisturbed
from spectrain.kernels.planning import Look, look, widened
from spectrain.optim.factored import FactoredLinearization, RowBlock


class LeastSquares:
    """``r = f(x) - y`` of any network: ``|r|^2 / 2`` is n C / 2 times the mean squared error.

    ::

        optimizer, fit = GaussNewton(network.parameters()), LeastSquares(network)
        for step in range(20):
            optimizer.step(fit.residuals(x, y))

    The kernel of r is the full NTK, from the layer Gram matrices of `spectrain.empirical_ntk`; a parameter without a
    rule takes the Jacobian path. The optimizer holds all of the network's trainable parameters.
    """

    def __init__(self, network: nn.Module) -> None:
        self._module = network
        self._rest: frozenset[str] = frozenset()  # parameters of the Jacobian path, as far as known
        self._seen: Look | None = None
        self._trained: tuple[str, ...] = ()

    def residuals(self, x: Inputs, y: Float[Tensor, "n C"]) -> "FitResiduals":
        """Those on a batch, at whatever weights the network has when they are asked for."""
        return FitResiduals(self, x, y)

    def outputs(self, x: Inputs) -> Float[Tensor, "n C"]:
        """f(x)."""
        dtype = next(p.dtype for p in self._module.parameters())
        x = tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, x)
        args, kwargs = arguments(x)
        f: Tensor = self._module(*args, **kwargs)
        return f.reshape(len(f), -1)

    def rows(self, x: Inputs, y: Float[Tensor, "n C"]) -> tuple[list[RowBlock], dict[str, torch.Size]]:
        """The residuals of every output with their factors, and the parameters' shapes in the network's order."""
        network = Network(self._module)
        check_mode(network)
        if self._trained != tuple(network.params):  # some were frozen, or set free
            self._trained, self._seen = tuple(network.params), None
            self._rest = frozenset(name for name in self._rest if name in network.params)
        with undisturbed(network):
            while True:
                try:
                    blocks = self._rows(network, network.inputs(x), y)
                    return blocks, {name: p.shape for name, p in network.params.items()}
                except UnknownUseError as found:
                    self._rest, self._seen = widened(self._rest, found, strict=False), None

    def _rows(self, network: Network, x: Inputs, y: Float[Tensor, "n C"]) -> list[RowBlock]:
        if self._seen is None:
            self._seen = look(network, x, "full", self._rest, strict=False, apart=True)
            grouped = {name for (name,), factor in self._seen.sample.items() if factor.sizes.groups > 1}
            self._rest |= grouped  # their factors' columns are not in the parameter's own order
            self._seen = look(network, x, "full", self._rest, strict=False)
        plan = self._seen.plan
        f, uses = planned(network, x, plan, finite=False)  # the optimizer says of the residuals that they are not
        gradients = output_gradients(f, uses, plan)
        dense = jacobian_factors(network, x, plan)
        joined = assemble(uses, gradients, len(f), plan) | dense
        apart = assemble(uses, gradients, len(f), replace(plan, apart=True)) | dense
        apart = {names: replace(g, by_entry=True) if isinstance(g, Index) else g for names, g in apart.items()}
        r = difference(f.detach(), y)
        return [
            RowBlock(
                r[:, c],
                {names[0]: factor.output(c) for names, factor in apart.items()},
                {names: factor.output(c) for names, factor in joined.items()},
            )
            for c in range(r.shape[1])
        ]


class FitResiduals:
    """r [n C] of one batch, all points of the first output before those of the second.

    Called, it returns r with a graph (where gradients are on); `linearize()` returns r and its Jacobian's products.
    """

    def __init__(self, fit: LeastSquares, x: Inputs, y: Float[Tensor, "n C"]) -> None:
        self._fit, self._x, self._y = fit, x, y

    def __call__(self) -> Float[Tensor, " nC"]:
        """The residual vector."""
        return difference(self._fit.outputs(self._x), self._y).T.flatten()

    def linearize(self) -> FactoredLinearization:
        """r, and products with J in factored form.

        Raises:
            InputError: outputs and targets of different shapes, or a network that has no kernel (`empirical_ntk`).
        """
        return FactoredLinearization(*self._fit.rows(self._x, self._y))


def difference(f: Float[Tensor, "n C"], y: Tensor) -> Float[Tensor, "n C"]:
    """f - y, once their shapes are found to be one."""
    if f.numel() != y.numel() or len(f) != len(y):
        raise InputError(f"The network's outputs are {list(f.shape)} and the targets {list(y.shape)}; give one shape.")
    return f - y.reshape(f.shape).to(f)
