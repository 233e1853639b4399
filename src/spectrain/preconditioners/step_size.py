"""How large a step of preconditioned gradient descent may be: measured, not guessed from a subset's eigenvalues.

Letters: n points, C outputs, m points of a minibatch, J the Jacobian of the outputs, H the Hessian of the
loss at the outputs.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from spectrain.errors import InputError
from spectrain.kernels import empirical_ntk
from spectrain.preconditioners.base import Preconditioner
from spectrain.preconditioners.modes import evaluating
from spectrain.preconditioners.parameter_side import ParameterPreconditioner
from spectrain.spectrum import Spectrum

ITERATIONS = 12
DIAGONAL_POINTS = 1024  # where no landmarks are at hand
Loss = Callable[[Tensor], Tensor]


def largest_preconditioned_eigenvalue(
    model: nn.Module,
    x: Any,
    preconditioner: Preconditioner | None = None,
    *,
    index: Integer[Tensor, " n"] | None = None,
    loss: Loss | None = None,
    iterations: int = ITERATIONS,
) -> float:
    """lambda_max of the preconditioned kernel K S / n at the points x, by power iteration: a jvp and a vjp each.

    With `loss`, the scalar loss as a function of the outputs, it is that of the preconditioned Gauss-Newton matrix
    P J^T S H J, and gradient descent on the linearised network is stable for steps below 2 / lambda_max. Twelve
    iterations give it to a few per cent, from below. `index`: the rows of x among the training points, as for
    `Preconditioner.run`. Never take 2/lambda_{k+1} of a subset for it: that was 1.3 to 16 times too large a step.

    Raises:
        InputError: the outputs do not depend on any trainable parameter, or are not finite.
    """
    return power_iteration(model, x, preconditioner, index=index, loss=loss, iterations=iterations)[0]


def power_iteration(
    model: nn.Module,
    x: Any,
    preconditioner: Preconditioner | None = None,
    *,
    index: Integer[Tensor, " n"] | None = None,
    loss: Loss | None = None,
    iterations: int = ITERATIONS,
    start: Float[Tensor, "n *C"] | None = None,
) -> tuple[float, Float[Tensor, "n *C"]]:
    """The same with the eigenvector at the outputs, from which the next measurement can `start`: u <- J P J^T S H u."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device.type
    in_use = None if preconditioner is None else preconditioner.in_use
    with evaluating(model), torch.enable_grad(), torch.autocast(device, enabled=False), sdpa_kernel(SDPBackend.MATH):
        f = model(x)  # fused attention has no second derivative
        wrapped = f if preconditioner is None else preconditioner.run(model, x, index)
        v = torch.zeros_like(f, requires_grad=True)
        along = torch.autograd.grad(f, parameters, v, create_graph=True, allow_unused=True)  # J^T v, linear in v
        linear = [(g, i) for i, g in enumerate(along) if g is not None and g.requires_grad]
        H = _mean_hessian if loss is None else _hessian(loss, f)
        u = torch.randn(f.shape, generator=torch.Generator().manual_seed(0)).to(f) if start is None else start.to(f)
        value = 0.0
        for _ in range(iterations):
            u = u / u.norm()
            w = list(torch.autograd.grad(wrapped, parameters, H(u), retain_graph=True, allow_unused=True))
            if isinstance(in_use, ParameterPreconditioner):
                in_use.apply_(parameters, w)
            total = torch.stack([(g * part).sum() for g, i in linear if (part := w[i]) is not None]).sum()
            (u,) = torch.autograd.grad(total, v, retain_graph=True)
            value = float(u.norm())
    if not 0 < value < float("inf"):
        raise InputError(f"The largest eigenvalue of the preconditioned kernel came out as {value}; check the weights.")
    return value, u.detach()


def _mean_hessian(u: Float[Tensor, "n *C"]) -> Float[Tensor, "n *C"]:
    """H u for the loss |f - y|^2 / (2 n): the kernel itself, K S / n."""
    return u / len(u)


def _hessian(loss: Loss, f: Tensor) -> Callable[[Tensor], Tensor]:
    """u -> H u, H the Hessian of the loss at the outputs f."""
    f = f.detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss(f), f, create_graph=True)
    if not slope.requires_grad:
        raise InputError("The loss is linear in the outputs: no step size follows from it. Give optimizer.lr a number.")

    def times(u: Tensor) -> Tensor:
        return torch.autograd.grad(slope, f, u, retain_graph=True)[0]

    return times


def eigenpro_step_size(top: float, beta: float, batch_size: int) -> float:
    """m/beta if m < beta/lambda' + 1, else .99 * 2m / (beta + (m-1) lambda'): the step for minibatches of m points.

    `top` lambda' the largest eigenvalue of the preconditioned K/n, `beta` the largest preconditioned kernel value
    k_P(x, x) at one point. It multiplies the mean gradient of |f - y|^2/2 over the batch; beyond m = beta/lambda' + 1 a
    larger batch buys little. Source: Ma and Belkin 2019 (EigenPro 2), section 4.
    """
    m = batch_size
    small = m < beta / top + 1
    return m / beta if small else 0.99 * 2 * m / (beta + (m - 1) * top)


def largest_diagonal(
    model: nn.Module, points: Tensor, preconditioner: Preconditioner | None = None, *, spectrum: Spectrum | None = None
) -> float:
    """beta = max_x k_P(x, x) at the points, C times the trace kernel: at least the norm of the C x C block of a point.

    ``k_P(x_j, x_j) = K_jj - m sum_i (1 - ratio_i) lambda_i v_ij^2``, `spectrum` the modes of K/m at these points.
    """
    with evaluating(model):
        diagonal = empirical_ntk(model, points).diagonal().double()
        C: int = model(points[:1]).numel()
    if preconditioner is not None and spectrum is not None:
        lowered = (1 - spectrum.ratio(preconditioner.effective_map)) * spectrum.eigenvalues
        diagonal = diagonal - len(points) * (spectrum.eigenvectors**2 @ lowered).to(diagonal)
    return float(C * diagonal.max())


def automatic_rate(
    model: nn.Module,
    x: Tensor,
    loss: Loss,
    preconditioner: Preconditioner | None = None,
    *,
    index: Integer[Tensor, " n"] | None = None,
    batch_size: int | None = None,
    momentum: float = 0.0,
) -> float:
    """A learning rate for gradient descent on a loss that is a mean over points: half of what is just stable.

    Half, because the kernel moves between two measurements. Nesterov's momentum mu is stable up to
    (1 + mu) / (1 + 2 mu) of gradient descent's limit, .68 at mu = .9 (a heavy ball goes further, and is treated alike).
    `loss` is a function of the outputs at x; `batch_size` the points of a step, None for all; `index` as for
    `Preconditioner.run`. Measure again after a refresh.

    Raises:
        InputError: the loss is linear in the outputs, or the eigenvalue is not finite.
    """
    modes = None if preconditioner is None else preconditioner.modes
    rate, _ = measure_rate(
        model, x, loss, preconditioner, index=index, batch_size=batch_size, momentum=momentum, modes=modes
    )
    return rate


def measure_rate(
    model: nn.Module,
    x: Tensor,
    loss: Loss,
    preconditioner: Preconditioner | None,
    *,
    index: Tensor | None,
    batch_size: int | None,
    momentum: float,
    modes: tuple[Tensor, Spectrum] | None,
    iterations: int = ITERATIONS,
    start: Tensor | None = None,
) -> tuple[float, Tensor]:
    """`automatic_rate` with the modes (landmarks, their spectrum) given, and the vector to `start` the next one from.

    The noise of minibatches is that of single points, beta h, with h the largest curvature of the loss at one point.
    Momentum mu adds up 1/(1 - mu) of them.
    """
    top, vector = power_iteration(model, x, preconditioner, index=index, loss=loss, iterations=iterations, start=start)
    half = 0.5 * (1 + momentum) / (1 + 2 * momentum)
    if batch_size is None:
        return half * 0.99 * 2 / top, vector
    points, spectrum = modes or (x[:DIAGONAL_POINTS], None)
    with evaluating(model), torch.no_grad():
        f = model(x)
    with torch.enable_grad():
        H, u = _hessian(loss, f), torch.ones_like(f)
        for _ in range(ITERATIONS):
            u = H(u / u.norm())
    h = len(f) * float(u.norm())
    beta = h * largest_diagonal(model, points, preconditioner, spectrum=spectrum)
    return half * eigenpro_step_size(top, beta / (1 - momentum), batch_size), vector
