"""S from each batch's own kernel: no landmarks to extend, no table, no eigenvectors, nothing to refresh.

Legend: n points of a batch, C outputs, m landmarks in the batch, k Ritz values.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self, TypeVar

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_leaves

from spectrain.errors import InputError, SpectrainWarning
from spectrain.kernels.capture import UnknownUseError, leaves
from spectrain.kernels.live import LivePlan, factors_live, plan_live, pull_parameters, record_live
from spectrain.kernels.network import arguments, unwrap
from spectrain.preconditioners import ranks
from spectrain.preconditioners.base import Preconditioner
from spectrain.preconditioners.batch_kernel import batch_kernel, gathered, reserve
from spectrain.spectral_maps import SpectralMap
from spectrain.spectral_maps.base import checked_ratio
from spectrain.spectrum.lanczos import apply_function
from spectrain.spectrum.solvers import LinAlgError, Matrix

OUTPUTS = ("sum", "trace")
T = TypeVar("T")


class BatchPreconditioner(Preconditioner):
    """Modified-spectrum preconditioner from the kernel K of each batch by itself, for any inputs, loss and optimizer.

    ::

        S = BatchPreconditioner(spectral_maps.power(0.5))
        loss = criterion(S.run(model, x), y)  # the loss of model(x), its output gradient c multiplied by S

    ``S c = r(K/n) c`` by Lanczos from c, r the map's ratio g(lambda)/lambda. K is taken in the loss's own forward pass.
    What the map is given are Ritz values, descending, held above ``floor`` times the largest, and that bound as the
    last one: a map that cuts at the smallest eigenvalue given cuts there. A map that counts modes is refused.

    Args:
        layers: the kernel of the parameters of that many last layers alone: for one or two of them it needs hardly any
            backward pass of its own. None takes all parameters.
        landmarks: m, points of the batch by whose columns K is approximated (Nystroem); None takes all of K.
        floor: in units of the largest eigenvalue.
        outputs: for C > 1, "sum" (of sum_c f_c / sqrt(C), one more backward pass) or "trace" (C more).
        max_steps, tolerance: Lanczos stops when four more steps change S c by less than that part of it.

    A step whose kernel is not finite, or does not fit into memory, goes on with the identity, with a warning;
    `skipped_steps` counts them. For several outputs S acts on each column of c.

    Where it is `shared`, a batch with an index is this rank's share, and K that of the global batch: its factors are
    gathered, and every rank computes the same S c. A step that fails on one rank goes on without S on all.
    """

    needs_spectrum = False

    def __init__(
        self,
        spectral_map: SpectralMap,
        *,
        layers: int | None = 2,
        landmarks: int | None = 256,
        floor: float = 1e-5,
        outputs: str = "sum",
        max_steps: int = 24,
        tolerance: float = 1e-2,
    ) -> None:
        super().__init__(spectral_map)
        if outputs not in OUTPUTS:
            raise InputError(f"preconditioner.outputs={outputs!r} is not known; allowed: {', '.join(OUTPUTS)}.")
        if not 0 < floor < 1:
            raise InputError(f"preconditioner.floor={floor} must lie between 0 and 1: it is in units of lambda_1.")
        for name, value in (("layers", layers), ("landmarks", landmarks), ("max_steps", max_steps)):
            if value is not None and value < 1:
                raise InputError(f"preconditioner.{name}={value} must be a whole number of at least 1.")
        self.layers, self.landmarks, self.floor, self.outputs = layers, landmarks, floor, outputs
        self.max_steps, self.tolerance = max_steps, tolerance
        self.skipped_steps = 0
        self._plan: tuple[Any, LivePlan] | None = None  # (what it was made for, the plan)
        _check_local(spectral_map, floor)

    def run(self, network: nn.Module, x: Any, index: Integer[Tensor, " n"] | None = None) -> Float[Tensor, "n *C"]:
        """``network(x)``; what comes back to it in the backward pass is multiplied by S. `index` only says that
        the batch is a share, where S is `shared`.

        x is a tensor [n, ...], or a tuple or dict of the network's arguments.

        Raises:
            InputError: a network without a kernel (active dropout, batch normalisation in training mode, ...).
        """
        if self.strength == 0 or not torch.is_grad_enabled():
            args, kwargs = arguments(x)
            plain: Tensor = network(*args, **kwargs)
            return plain
        live = self._look(network, x)
        try:
            output, uses = record_live(network, x, live)
        except UnknownUseError:  # other uses than at the first look: no plan holds, the Jacobian always does
            live = self._look(network, x, by_jacobian=True)
            output, uses = record_live(network, x, live)
        f = output.reshape(len(output), -1)
        with torch.autocast(f.device.type, enabled=False):
            shared = self.shared and index is not None
            factors = (
                self._attempt(lambda: factors_live(f, uses, live, network, x), shared) if f.requires_grad else None
            )
            fits = None if factors is None else self._attempt(lambda: reserve(factors, shared), shared)
            whole = None if factors is None or fits is None else gathered(factors, shared)
            kernel = None if whole is None else self._attempt(lambda: batch_kernel(whole, self.landmarks), shared)
        if factors is None or kernel is None:
            return output
        precondition = partial(self._precondition, kernel, shared)
        if not self._in_one_pass(network, live, f):
            wrapped = output.view_as(output)  # the hook must not reach whatever else uses `output`
            wrapped.register_hook(precondition)
            return wrapped
        parameters = {name: network.get_parameter(name) for names in factors for name in names}

        def pull(c: Tensor) -> list[Tensor]:
            gradients = pull_parameters(factors, precondition(c).flatten(), parameters)
            return [gradients[name] for name in parameters]

        one_pass: Tensor = _OnePass.apply(output.detach(), pull, *parameters.values())  # type: ignore[no-untyped-call]
        return one_pass

    @property
    def ready(self) -> bool:
        """From the first batch on."""
        return True

    @property
    def effective_map(self) -> Callable[[Tensor], Tensor]:
        """`ratio`."""
        return self.ratio

    def ratio(self, eigenvalues: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """g(lambda)/lambda on Ritz values of K/n, descending: those below the floor count as lying at it."""
        least = self.floor * eigenvalues[:1]
        given = torch.cat([eigenvalues.clamp(min=least), least])
        return checked_ratio(self.spectral_map, self.spectral_map(given), given)[:-1]

    def state_dict(self) -> dict[str, Any]:
        """Primitives only: S has no memory, so that a resumed run equals an uninterrupted one."""
        return super().state_dict() | {"skipped_steps": self.skipped_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> Self:
        """Restore what `state_dict` returned."""
        self.skipped_steps = state_dict["skipped_steps"]
        return super().load_state_dict(state_dict)

    def _look(self, network: nn.Module, x: Any, *, by_jacobian: bool = False) -> LivePlan:
        """The plan for networks and inputs of this kind, made when the first of them is met."""
        inner = unwrap(network)
        kind = (
            [(leaf.shape[1:], leaf.dtype) for leaf in tree_leaves(x) if isinstance(leaf, Tensor)],
            [module.training for module in inner.modules()],
            [p.requires_grad for p in inner.parameters()],
        )
        seen = self._plan
        if by_jacobian or seen is None or seen[1].network.module is not inner or seen[0] != kind:
            plan = plan_live(network, x, self.outputs, layers=self.layers, by_jacobian=by_jacobian)
            seen = self._plan = (kind, plan)
        return seen[1]

    def _in_one_pass(self, network: nn.Module, live: LivePlan, f: Float[Tensor, "n C"]) -> bool:
        """Whether the factors give all that the loss's own backward pass would, which is then left out.

        Not where someone else waits for that pass: a wrapper such as DistributedDataParallel, hooks on modules, inputs
        or tensors from outside the network that are differentiated too.
        """
        return (
            self.layers is None
            and f.shape[1] == 1
            and live.complete
            and network is live.network.module
            and not any(module._backward_hooks or module._backward_pre_hooks for module in network.modules())
            and {id(leaf) for leaf in leaves(f)} <= {id(p) for p in network.parameters()}
        )

    def _precondition(self, kernel: Matrix, shared: bool, c: Float[Tensor, "n *C"]) -> Float[Tensor, "n *C"]:
        """``c + strength (S c - c)``, column by column; c itself where that fails."""
        with torch.no_grad(), torch.autocast(c.device.type, enabled=False):
            columns = c.reshape(len(c), -1).to(kernel.dtype)
            everything, mine = ranks.interleaved(columns, shared)
            if not bool(torch.isfinite(everything).all()):  # an overflow that the gradient scaler deals with
                return c
            Sc = self._attempt(lambda: torch.stack([self._apply(kernel, v) for v in everything.unbind(1)], 1))
            if Sc is None:
                return c
            return torch.lerp(columns, Sc[mine], self.strength).reshape(c.shape).to(c.dtype)

    def _apply(self, kernel: Matrix, c: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        def ratio(values: Tensor) -> Tensor:  # of eigenvalues of K
            if not bool(values[0] > 0):
                raise LinAlgError("the kernel of the batch is zero")
            return self.ratio(values / len(c))

        return apply_function(kernel, c, ratio, max_steps=self.max_steps, tolerance=self.tolerance)

    def _attempt(self, compute: Callable[[], T], shared: bool = False) -> T | None:
        """The result, or None, a warning and one more skipped step; the same on all ranks where it is `shared`."""
        try:
            return ranks.together(compute, shared)
        except (RuntimeError, MemoryError, ranks.FailedElsewhereError) as error:  # LinAlgError is a RuntimeError
            if ranks.is_of_a_collective(error):
                raise
            self.skipped_steps += 1
            message = f"A training step went on without S: {error}"
            warnings.warn(message, SpectrainWarning, stacklevel=2)
            return None


class _OnePass(torch.autograd.Function):
    """The network's output, cut from its graph: what comes back to it reaches the parameters by `pull` alone."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, pull: Callable[[Tensor], Sequence[Tensor]], *parameters: Tensor) -> Tensor:
        ctx.pull = pull
        return output.clone()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, c: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(c.device.type, enabled=False):
            return None, None, *ctx.pull(c)


def _check_local(spectral_map: SpectralMap, floor: float) -> None:
    """Refuse a map that counts eigenvalues: it must give a Ritz value the same ratio whatever lies between.

    Raises:
        InputError: the map has a rank, a band, or a frequency for each eigenvalue.
    """
    values = torch.logspace(0, math.log10(floor), 129, dtype=torch.float64)
    few = values[::4]
    try:
        local = torch.allclose(spectral_map(values)[::4], spectral_map(few), rtol=1e-6, atol=0)
    except InputError:  # a rank above the number of eigenvalues
        local = False
    if not local:
        raise InputError(
            f"The map {spectral_map} counts eigenvalues, and each batch's own kernel is known by Ritz values, which "
            "cannot be counted. Use a map of the eigenvalue itself: power or flatten with rank=null, ridge, heat."
        )
