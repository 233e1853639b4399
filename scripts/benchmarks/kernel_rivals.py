"""What the kernel benchmark compares with: PyTorch's tutorial, and other libraries where they are installed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from spectrain.kernels import empirical_ntk

Way = Callable[[nn.Module, Tensor], Tensor]


def split_parameters(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return {k: p.detach() for k, p in module.named_parameters()}, dict(module.named_buffers())


@contextmanager
def plain_attention() -> Iterator[None]:
    """The rivals' best footing: fused attention has no batching rule and no forward derivative."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with sdpa_kernel(SDPBackend.MATH):
        yield
    torch.backends.mha.set_fastpath_enabled(fast)


def jacobian(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Every parameter's Jacobian, [n, C, p], by vmap(jacrev)."""
    params, buffers = split_parameters(module)

    def single(p: dict[str, Tensor], row: Tensor) -> Tensor:
        return functional_call(module, (p, buffers), (row.unsqueeze(0),)).squeeze(0)

    return [j.flatten(2) for j in vmap(jacrev(single), (None, 0))(params, x).values()]


def contracted(one: list[Tensor], two: list[Tensor]) -> Tensor:
    """The tutorial's contraction, compute='trace', divided by C."""
    parts = [torch.einsum("Naf,Maf->NM", j1, j2) for j1, j2 in zip(one, two, strict=True)]
    return torch.stack(parts).sum(0) / one[0].shape[1]


@plain_attention()
def published(module: nn.Module, x: Tensor) -> Tensor:
    """The tutorial's empirical_ntk_jacobian_contraction as printed there: one Jacobian for x1, one for x2 = x1."""
    return contracted(jacobian(module, x), jacobian(module, x))


@plain_attention()
def contraction(module: nn.Module, x: Tensor) -> Tensor:
    """The same, kinder: one Jacobian for both sides."""
    one = jacobian(module, x)
    return contracted(one, one)


@plain_attention()
def products(module: nn.Module, x: Tensor) -> Tensor:
    """The tutorial's empirical_ntk_ntk_vps, compute='trace', divided by C."""
    params, buffers = split_parameters(module)

    def ntk(x1: Tensor, x2: Tensor) -> Tensor:
        def f1(p: dict[str, Tensor]) -> Tensor:
            return functional_call(module, (p, buffers), (x1.unsqueeze(0),)).squeeze(0)

        def f2(p: dict[str, Tensor]) -> Tensor:
            return functional_call(module, (p, buffers), (x2.unsqueeze(0),)).squeeze(0)

        output, pull = vjp(f1, params)

        def product(v: Tensor) -> Tensor:
            return jvp(f2, (params,), pull(v))[1]

        return vmap(product)(torch.eye(output.numel(), dtype=output.dtype))

    K = vmap(vmap(ntk, (None, 0)), (0, None))(x, x)
    return torch.einsum("NMKK->NM", K) / K.shape[-1]


def one_layer_after_another(module: nn.Module) -> tuple[list[tuple[Any, Any]], Callable[..., Any]]:
    """A Sequential of Linear and ReLU layers as JAX parameters and a JAX function of them."""
    jnp = import_module("jax.numpy")
    linear = (layer for layer in module.children() if isinstance(layer, nn.Linear))
    params = [(jnp.asarray(p.weight.detach().numpy()), jnp.asarray(p.bias.detach().numpy())) for p in linear]

    def f(params: list[tuple[Any, Any]], x: Any) -> Any:
        for weight, bias in params[:-1]:
            x = jnp.maximum(x @ weight.T + bias, 0)
        return x @ params[-1][0].T + params[-1][1]

    return params, f


_compiled: dict[str, Callable[..., Any]] = {}


def neural_tangents(implementation: str) -> Way:
    """neural_tangents.empirical_ntk_fn, jitted; MLPs only."""

    def way(module: nn.Module, x: Tensor) -> Tensor:
        jax, nt = import_module("jax"), import_module("neural_tangents")
        params, f = one_layer_after_another(module)
        if implementation not in _compiled:
            kind = nt.NtkImplementation[implementation]
            _compiled[implementation] = jax.jit(
                nt.empirical_ntk_fn(f, trace_axes=(-1,), vmap_axes=0, implementation=kind)
            )
        return torch.from_numpy(np.array(_compiled[implementation](x.numpy(), None, params)))

    return way


def nngeometry(module: nn.Module, x: Tensor) -> Tensor:
    """Its Gram matrix, from hooks."""
    backend = import_module("nngeometry.backend.torch_hooks.torch_hooks").TorchHooksJacobianBackend(module)
    K = backend.get_gram_matrix((x.clone(),))
    return torch.einsum("cncm->nm", K.detach()) / K.shape[0]


def curvlinops(module: nn.Module, x: Tensor) -> Tensor:
    """Its Jacobian applied to its transpose, applied to the identity; one output."""
    linops, data = import_module("curvlinops"), [(x, torch.zeros(len(x), 1))]
    params = list(module.parameters())
    J = linops.JacobianLinearOperator(module, params, data, check_deterministic=False)
    JT = linops.TransposedJacobianLinearOperator(module, params, data, check_deterministic=False)
    return (J @ (JT @ torch.eye(len(x)))).detach()


# Rivals that are no dependency of this project, and the package that each needs.
OPTIONAL = {
    "neural-tangents, contraction": "neural_tangents",
    "neural-tangents, structured": "neural_tangents",
    "nngeometry": "nngeometry",
    "curvlinops": "curvlinops",
}
RIVALS: dict[str, Way] = {
    "published": published,
    "contraction": contraction,
    "products": products,
    "jacobian": lambda module, x: empirical_ntk(module, x, method="jacobian", progress=False),
    "neural-tangents, contraction": neural_tangents("JACOBIAN_CONTRACTION"),
    "neural-tangents, structured": neural_tangents("STRUCTURED_DERIVATIVES"),
    "nngeometry": nngeometry,
    "curvlinops": curvlinops,
}


def installed(way: str) -> bool:
    """Whether a way's package is there."""
    return way not in OPTIONAL or find_spec(OPTIONAL[way]) is not None
