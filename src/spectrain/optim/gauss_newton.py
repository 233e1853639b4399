"""Gauss-Newton in sample space: the ridge map of the residuals' kernel at every step, with a line search.

Legend: n residuals, P parameters, K = J J^T [n, n] the kernel of the residual vector r [n], loss = |r|^2 / 2.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.errors import InputError, SpectrainWarning
from spectrain.optim.linearization import Linearization, checked_residuals, linearize
from spectrain.optim.sketched import Sketch

HALVINGS = 30
# Where Cholesky fails, or no step of all those lowers the loss. Damping more after a few halvings, as a trust
# region would, was slower on Helmholtz's equation: a short step along the undamped direction is the better one.
MORE_DAMPING, LARGEST_DAMPING = 100.0, 1e-2
LARGEST_KERNEL = 8 * 10**8  # bytes, 10,000 rows of float64; Cholesky takes a minute and three times as much memory


class GaussNewton(torch.optim.Optimizer):
    """``w <- w - t J^T S r`` with S the ridge map, ``S = (K/n + ridge)^-1``, and t by a line search.

    ::

        optimizer = GaussNewton(network.parameters())
        for step in range(200):
            loss = optimizer.step(residuals)  # residuals() -> r [n], the loss is |r|^2 / 2

    ridge = mu trace(K)/n, in units of the eigenvalues of K/n. S is solved with by Cholesky, of K [n, n] or, when P < n,
    of J^T J [P, P]: the same step, since J^T (J J^T + c)^-1 = (J^T J + c)^-1 J^T; or, where the smaller of
    both would take more than 800 MB, by conjugate gradients and a Nystroem sketch of K. t starts at lr times the
    minimiser of the linearised loss, ``-lr (r . J d) / |J d|^2``, and is halved until the true loss falls. Where points
    are drawn anew for every step, a schedule that takes lr to 0 in the end averages out what each draw misses. This is
    the energy natural gradient (Mueller and Zeinhofer 2023, arXiv 2302.13163), and with momentum SPRING (Goldshlager et
    al. 2024, arXiv 2401.10190): d minimises ``|r + J d|^2 + n ridge |d - momentum d_before|^2``.

    `residuals` is called with gradients for the Jacobian and without for the line search, at the same points. If it has
    a method `linearize()` (`spectrain.pde.Residuals` has, and what `LeastSquares` makes of data), that makes the
    Jacobian's products, without the Jacobian; it may also be a function that returns such an object.
    Where the factorisation fails or no step along d lowers the loss, d is made again with 100 times the damping, up to
    .01; when that does not help either, the step is one along -J^T r, and a warning says so. `state["halvings"]`,
    `["fallbacks"]` and `["step_size"]` tell of it.

    Raises:
        InputError: mu, momentum or lr out of range, residuals that are not a finite vector or are of other parameters.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        mu: float = 1e-8,
        momentum: float = 0.0,
        lr: float = 1.0,
    ) -> None:
        if not mu > 0:
            raise InputError(f"optimizer.mu={mu} must be above 0: the damping, relative to the trace of the kernel.")
        if not 0 <= momentum < 1:
            raise InputError(f"optimizer.momentum={momentum} must be at least 0 and below 1.")
        if not 0 < lr <= 1:
            raise InputError(f"optimizer.lr={lr} must be above 0 and at most 1: the part of the linearised step.")
        super().__init__(params, {"mu": mu, "momentum": momentum, "lr": lr})
        if len(self.param_groups) != 1:
            raise InputError("GaussNewton takes all parameters in one group: they share one kernel.")
        self.state["halvings"], self.state["fallbacks"], self.state["step_size"] = 0, 0, 0.0  # type: ignore[index]

    @property
    def _params(self) -> list[Tensor]:
        return [p for p in self.param_groups[0]["params"] if p.requires_grad]

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor:  # type: ignore[override]
        """One step on the residuals that `closure` returns; the loss before it."""
        if closure is None:
            raise InputError("GaussNewton.step needs the function that returns the residual vector.")
        residuals, lin = self._linearized(closure)
        loss = 0.5 * checked_residuals(lin.r).square().sum()
        settings, before = self.param_groups[0], self.state.get("direction")  # type: ignore[call-overload]
        if settings["lr"] == 0:  # a schedule that has ended
            return loss
        system = DampedSystem(lin)
        before = before if before is not None and len(before) == lin.parameters else None  # some may have been frozen
        d, damping, moved = None, settings["mu"], False
        while not moved and damping <= max(settings["mu"], LARGEST_DAMPING):
            d = system.direction(damping, settings["momentum"], before)
            moved = d is not None and self._search(residuals, lin, d, loss)
            damping *= MORE_DAMPING
        if not moved or d is None:
            what = "the factorisation of the kernel failed" if d is None else "no step along it lowers the loss"
            d = self._fall_back(residuals, lin, loss, what)
        if settings["momentum"]:
            self.state["direction"] = d  # type: ignore[index]
        return loss

    def _linearized(self, closure: Callable[[], Any]) -> tuple[Callable[[], Tensor], Linearization]:
        """The function that returns r, and r linearised; Lightning wraps closures, so one may return the other."""
        with torch.enable_grad():
            source = closure if hasattr(closure, "linearize") else closure()
            if isinstance(source, Tensor):
                return closure, linearize(source, self._params)
            lin = source.linearize()
        held = tuple(p.shape for p in self._params)
        if lin.shapes not in (None, held):
            raise InputError(
                f"The optimizer holds {sum(s.numel() for s in held)} parameters in {len(held)} tensors and the "
                f"residuals have {lin.parameters} in {len(lin.shapes or ())}; give GaussNewton all the trainable "
                "parameters of the network, in its order, and no others."
            )
        return source, lin

    def _fall_back(self, closure: Callable[[], Tensor], lin: Linearization, loss: Tensor, what: str) -> Tensor:
        """A plain step of gradient descent, its size by the same search."""
        self.state["fallbacks"] += 1  # type: ignore[index]
        g = -lin.pull(lin.r)
        moved = self._search(closure, lin, g, loss)
        if self.state["fallbacks"] == 1:  # type: ignore[index]
            end = "a plain gradient step was made" if moved else "nor one along the gradient: the weights stay"
            message = f"Gauss-Newton direction given up ({what}); {end}. A larger optimizer.mu may help. Said once."
            warnings.warn(message, SpectrainWarning, stacklevel=4)
        return g if moved else torch.zeros_like(g)

    def _search(self, closure: Callable[[], Tensor], lin: Linearization, d: Tensor, loss: Tensor) -> bool:
        """Move by t d, t halved from lr times the minimiser of |r + t J d|^2 until the loss falls; False if never."""
        Jd = lin.push(d)
        t = -self.param_groups[0]["lr"] * torch.dot(lin.r, Jd) / Jd.square().sum()
        if not (bool(torch.isfinite(t)) and t > 0):
            return False
        start = [p.clone() for p in self._params]
        try:
            for halving in range(HALVINGS):
                self._move(start, t * d)
                trial = 0.5 * closure().square().sum()
                if trial < loss:  # never for nan
                    self.state["halvings"], self.state["step_size"] = halving, float(t)  # type: ignore[index]
                    return True
                t = t / 2
        except BaseException:  # a trial is no place to leave the weights
            self._move(start, torch.zeros_like(d))
            raise
        self._move(start, torch.zeros_like(d))
        return False

    def _move(self, start: list[Tensor], d: Float[Tensor, " P"]) -> None:
        for p, origin, change in zip(self._params, start, d.split([p.numel() for p in start]), strict=True):
            p.copy_(origin + change.view_as(p))


class DampedSystem:
    """The normal equations of one linearisation, on the smaller side, for any damping.

    `direction` is the minimiser d of ``|r + J d|^2 + c |d - m d_before|^2``, ``c = mu trace(K)``:
    with z = r + m J d_before,  d = m d_before - J^T (K + c)^-1 z = m d_before - (J^T J + c)^-1 J^T z.
    Where neither side's matrix fits into `LARGEST_KERNEL`, K is not formed: `spectrain.optim.sketched`.
    """

    def __init__(self, lin: Linearization) -> None:
        self._lin = lin
        side = min(len(lin.r), lin.parameters)
        self._sketch = Sketch(lin) if side**2 * lin.r.element_size() > LARGEST_KERNEL else None
        self._on_parameters = self._sketch is None and lin.parameters < len(lin.r)
        if self._sketch is None:
            self._A = lin.normal() if self._on_parameters else lin.gram()
        self._trace = lin.diagonal().sum() if self._sketch else self._A.trace()  # the same on both sides

    def direction(
        self, mu: float, momentum: float = 0.0, before: Float[Tensor, " P"] | None = None
    ) -> Float[Tensor, " P"] | None:
        """d, or None where Cholesky or the conjugate gradients fail."""
        origin = None if before is None or not momentum else momentum * before
        z = self._lin.r if origin is None else self._lin.r + self._lin.push(origin)
        solved = self._solve(self._lin.pull(z) if self._on_parameters else z, mu * self._trace)
        if solved is None or not bool(torch.isfinite(solved).all()):
            return None
        solved = solved if self._on_parameters else self._lin.pull(solved)
        return -solved if origin is None else origin - solved

    def _solve(self, b: Tensor, c: Tensor) -> Tensor | None:
        if self._sketch is not None:
            return self._sketch.solve(float(c), b)
        A = self._A.clone()
        A.diagonal().add_(c)
        L, info = torch.linalg.cholesky_ex(A)
        return None if bool(info) else torch.cholesky_solve(b[:, None], L)[:, 0]
