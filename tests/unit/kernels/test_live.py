"""A recorded training forward against the module itself, and its factors against the explicit Jacobian."""

import pytest
import torch
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.kernels.capture import Factors, UnknownUseError
from spectrain.kernels.live import factors_live, plan_live, pull_parameters, record_live

from .oracle import call, jacobian, kernel, relative_error
from .zoo import ZOO, build, normal, plain


class OneOutput(nn.Module):
    """A fixed mix of a module's outputs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        f = self.module(*args, **kwargs)
        f = f.reshape(len(f), -1)
        return f @ torch.linspace(1, 2, f.shape[1], dtype=f.dtype)


def gram(module: nn.Module, x: object, outputs: str) -> tuple[Tensor, Tensor]:
    """The output of a recorded forward, and the kernel from its factors, formed column by column."""
    live = plan_live(module, x, outputs)
    output, uses = record_live(module, x, live)
    factors = factors_live(output.reshape(len(output), -1), uses, live, module, x)
    return output, product(factors)


def product(factors: Factors) -> Tensor:
    G = torch.cat([f.columns(0, f.sizes.outputs).flatten(1) for f in factors.values()], 1)
    return G @ G.T


def trainable(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


@pytest.mark.parametrize("name", ZOO)
def test_every_module_gives_its_output_its_gradient_and_its_kernel(name: str) -> None:
    module, x, _ = build(name)
    own = plain(module)
    want = call(own, x)
    gradients = torch.autograd.grad(want.square().sum(), trainable(own), allow_unused=True)
    untouched = plain(build(name)[0])  # a forward leaves tensors on its modules that cannot be copied (weight_norm)
    for outputs in ("trace", "sum"):
        output, K = gram(module, x, outputs)
        torch.testing.assert_close(output, want, rtol=1e-12, atol=1e-12)
        assert relative_error(K, kernel(untouched, x, outputs=outputs)) < 1e-10
        found = torch.autograd.grad(output.square().sum(), trainable(module), allow_unused=True)
        for one, two in zip(found, gradients, strict=True):
            assert (one is None) == (two is None)
            if one is not None and two is not None:
                torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ZOO)
def test_the_factors_make_every_parameters_gradient(name: str) -> None:
    module, x, _ = build(name)
    module = OneOutput(plain(module))
    live = plan_live(module, x, "sum")
    if not live.complete:
        pytest.skip("takes the usual backward")
    output, uses = record_live(module, x, live)
    factors = factors_live(output[:, None], uses, live, module, x)
    parameters = dict(module.named_parameters())
    s = normal(len(output), seed=5)
    found = pull_parameters(factors, s, parameters)
    flat = torch.cat([found.get(name, torch.zeros_like(p)).flatten() for name, p in parameters.items()])
    assert relative_error(flat, torch.einsum("n,ncp->p", s, jacobian(module, x))) < 1e-10


@pytest.mark.parametrize(
    ("name", "complete"),
    [
        *[(name, True) for name in ("mlp", "tokens", "layer norm", "residual", "self attention")],
        *[(name, False) for name in ("conv2d", "embedding", "functional weight", "bare parameters")],
    ],
)
def test_what_is_complete(name: str, complete: bool) -> None:
    """That few are skipped above: what is made of Linear layers and norms is complete."""
    module, x, _ = build(name)
    assert plan_live(OneOutput(plain(module)), x, "sum").complete == complete


def test_the_last_layer_alone() -> None:
    module, x, _ = build("mlp")
    live = plan_live(module, x, "sum", layers=1)
    output, uses = record_live(module, x, live)
    K = product(factors_live(output, uses, live, module, x))
    for p in list(module.parameters())[:-2]:
        p.requires_grad_(False)
    assert relative_error(K, kernel(module, x, outputs="sum")) < 1e-10
    with pytest.raises(InputError, match="layers=null"):
        plan_live(nn.Bilinear(4, 3, 2).double(), (normal(5, 4), normal(5, 3)), "sum", layers=1)


def test_a_forward_that_takes_another_path_is_noticed() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) if float(x.detach().sum()) > 0 else self.two(x)

    module, x = Fork(), torch.ones(4, 2)
    live = plan_live(module, x, "sum")
    with pytest.raises(UnknownUseError):
        record_live(module, -x, live)
    live = plan_live(module, x, "sum", by_jacobian=True)
    output, uses = record_live(module, -x, live)
    factors = factors_live(output, uses, live, module, -x)
    K = product(factors)
    assert relative_error(K, kernel(module, -x)) < 1e-6


def test_autocast_rounds_factors_only() -> None:
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1)), normal(40, 2).float()
    live = plan_live(module, x, "sum")
    with torch.autocast("cpu", torch.bfloat16):
        output, uses = record_live(module, x, live)
    assert output.dtype == torch.bfloat16
    factors = factors_live(output, uses, live, module, x)
    assert all(t.dtype == torch.float32 for f in factors.values() for t in f.tensors())
    K = product(factors)
    assert relative_error(K, kernel(module, x)) < 0.02
    assert torch.linalg.eigvalsh(K.double()).min() > -1e-6 * float(K.trace())
