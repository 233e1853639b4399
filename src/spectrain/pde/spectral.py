"""References for equations in one periodic dimension: Fourier in space, exponential Runge-Kutta in time.

Legend: M modes, T stored moments, k wave numbers.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from scipy.interpolate import RectBivariateSpline
from torch import Tensor
from torch.autograd.function import once_differentiable

Function = Callable[[Tensor], Tensor]
# The contour of Kassam and Trefethen: 32 points on a circle around each number.
_CONTOUR = 32


class PeriodicReference:
    """``u_t = L u + d/dx F(u) + G(u)`` on [-1, 1], periodic, t in [0, 1]; called with points (x, t) it gives u.

    L is diagonal in Fourier space, `linear(k)`; F is `conserved` and G is `local`. ETDRK4 (Cox and Matthews 2002, with
    the contour integrals of Kassam and Trefethen 2005), the highest third of the modes cut off against aliasing.
    Between the stored moments and the grid's points a bicubic spline, which autograd differentiates once.
    """

    def __init__(
        self,
        start: Function,
        linear: Function,
        *,
        conserved: Function | None = None,
        local: Function | None = None,
        modes: int = 2048,
        steps: int = 4000,
        stored: int = 401,
    ) -> None:
        x = -1 + 2 * torch.arange(modes, dtype=torch.float64) / modes
        k = torch.pi * torch.arange(modes // 2 + 1, dtype=torch.float64)
        kept = torch.arange(modes // 2 + 1) <= modes // 3

        def nonlinear(v: Tensor) -> Tensor:
            values = torch.fft.irfft(v, n=modes)
            total = torch.zeros_like(v)
            if conserved is not None:
                total = total + 1j * k * torch.fft.rfft(conserved(values))
            if local is not None:
                total = total + torch.fft.rfft(local(values))
            return torch.where(kept, total, 0)

        v = torch.where(kept, torch.fft.rfft(start(x)), 0)
        step = _etdrk4(linear(k), nonlinear, 1 / steps)
        every = steps // (stored - 1)
        rows = [torch.fft.irfft(v, n=modes)]
        for count in range(1, steps + 1):
            v = step(v)
            if count % every == 0:
                rows.append(torch.fft.irfft(v, n=modes))
        table = torch.stack(rows, 1)
        closed = torch.cat([x, x.new_tensor([1.0])]).numpy()
        moments = torch.linspace(0, 1, len(rows), dtype=torch.float64).numpy()
        self._spline = RectBivariateSpline(closed, moments, torch.cat([table, table[:1]]).numpy())

    def __call__(self, x: Float[Tensor, "N 2"]) -> Float[Tensor, "N 1"]:
        """u at the points (x, t)."""
        values: Tensor = _Spline.apply(x, self._spline)  # type: ignore[no-untyped-call]
        return values


class _Spline(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, spline: RectBivariateSpline) -> Tensor:
        ctx.spline = spline
        ctx.save_for_backward(x)
        return _evaluated(spline, x)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        slopes = torch.cat([_evaluated(ctx.spline, x, dx=1), _evaluated(ctx.spline, x, dy=1)], 1)
        return gradient * slopes, None


def _evaluated(spline: RectBivariateSpline, x: Tensor, **orders: int) -> Float[Tensor, "N 1"]:
    """The spline, or its derivative of those orders."""
    points = x.detach().double().cpu().numpy()
    return torch.from_numpy(spline.ev(points[:, 0], points[:, 1], **orders))[:, None].to(x)


def _etdrk4(L: Float[Tensor, " k"], nonlinear: Function, h: float) -> Function:
    """One step of length h."""
    angles = torch.exp(1j * torch.pi * (torch.arange(1, _CONTOUR + 1, dtype=torch.float64) - 0.5) / _CONTOUR)
    z = h * L[:, None] + angles
    E, E2 = torch.exp(h * L), torch.exp(h * L / 2)
    Q = h * ((torch.exp(z / 2) - 1) / z).mean(1).real
    f1 = h * ((-4 - z + torch.exp(z) * (4 - 3 * z + z**2)) / z**3).mean(1).real
    f2 = h * ((2 + z + torch.exp(z) * (-2 + z)) / z**3).mean(1).real
    f3 = h * ((-4 - 3 * z - z**2 + torch.exp(z) * (4 - z)) / z**3).mean(1).real

    def step(v: Tensor) -> Tensor:
        N0 = nonlinear(v)
        a = E2 * v + Q * N0
        Na = nonlinear(a)
        b = E2 * v + Q * Na
        Nb = nonlinear(b)
        c = E2 * a + Q * (2 * Nb - N0)
        return E * v + f1 * N0 + 2 * f2 * (Na + Nb) + f3 * nonlinear(c)

    return step
