"""Modules of every kind, each with the inputs that it takes: small, float64, a fixed seed."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from . import modules
from .modules import (
    Bare,
    BareTwice,
    Checkpointed,
    CrossAttention,
    First,
    FoldedFrames,
    FunctionalWeight,
    Keywords,
    Lambda,
    OddBroadcast,
    OwnAttention,
    PartlyNoGrad,
    Patched,
    Residual,
    TiedLanguage,
    TimeFirst,
    Unused,
    WeightNormed,
)

N = modules.POINTS


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(n: int, length: int, entries: int, seed: int = 0) -> Tensor:
    return torch.randint(0, entries, (n, length), generator=torch.Generator().manual_seed(seed))


def convnet(conv: nn.Module, *more: nn.Module) -> nn.Module:
    return nn.Sequential(conv, nn.Tanh(), *more, nn.Flatten(), nn.LazyLinear(2))


def shared() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(4, 2))


def shared_conv() -> nn.Module:
    layer = nn.Conv2d(2, 2, 3, padding=1)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Flatten(), nn.Linear(32, 2))


def parametrized(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(wrap(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 2))


def batch_norm() -> nn.Module:
    norm = nn.BatchNorm1d(5)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(nn.Linear(4, 5), norm, nn.Tanh(), nn.Linear(5, 2)).eval()


def mlp(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), *layers, nn.Linear(6, 3))


class InPlaceResidual(nn.Module):
    """``h += x`` on a layer's output over positions, which is a view."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.inner(x)
        h += x
        return self.last(h.tanh_())


def transformer(**kwargs: object) -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True, **kwargs)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.Sequential(encoder, Lambda(lambda x: x.mean(1)), nn.Linear(4, 2)).eval()


Make = Callable[[], nn.Module]
FLAT, SEQUENCE, IMAGE = (4,), (3, 4), (2, 4, 4)

# name: (module, shape of one input or a maker of n inputs, whether the rules know every parameter)
ZOO: dict[str, tuple[Make, object, bool]] = {
    "mlp": (lambda: mlp(nn.ReLU()), FLAT, True),
    "mlp inplace": (lambda: mlp(nn.ReLU(inplace=True)), FLAT, True),
    "no bias, one output": (lambda: nn.Sequential(nn.Linear(4, 1, bias=False), nn.Flatten(0)), FLAT, True),
    "tokens inplace": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), InPlaceResidual()),
        SEQUENCE,
        True,
    ),
    "tokens": (lambda: nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2)), SEQUENCE, True),
    "conv1d": (lambda: convnet(nn.Conv1d(3, 2, 2, stride=2, padding=1)), SEQUENCE, True),
    "conv2d": (lambda: convnet(nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 2, 3, stride=2)), IMAGE, True),
    "conv2d dilated": (lambda: convnet(nn.Conv2d(2, 3, (3, 2), padding=(2, 1), dilation=(2, 1))), IMAGE, True),
    "conv2d circular": (lambda: convnet(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")), IMAGE, True),
    "conv2d reflect same": (lambda: convnet(nn.Conv2d(2, 3, 2, padding="same", padding_mode="reflect")), IMAGE, True),
    "conv2d same": (lambda: convnet(nn.Conv2d(2, 3, 2, padding="same", bias=False)), IMAGE, True),
    "conv2d groups": (lambda: convnet(nn.Conv2d(2, 4, 3, groups=2)), IMAGE, True),
    "conv3d": (lambda: convnet(nn.Conv3d(1, 2, 2)), (1, 3, 3, 3), True),
    "transposed": (lambda: convnet(nn.ConvTranspose2d(2, 3, 3, 2, padding=1, output_padding=1)), IMAGE, True),
    "transposed groups": (lambda: convnet(nn.ConvTranspose2d(2, 4, 2, groups=2, dilation=2)), IMAGE, True),
    "transposed 1d": (lambda: convnet(nn.ConvTranspose1d(3, 2, 2, stride=2)), SEQUENCE, True),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(6, 4, padding_idx=1), nn.Linear(4, 3), nn.Tanh(), nn.Flatten()),
        lambda n, s: tokens(n, 7, 6, s),
        True,
    ),
    "embedding bag": (
        lambda: nn.Sequential(nn.EmbeddingBag(6, 4, mode="mean", padding_idx=1), nn.Tanh(), nn.Linear(4, 3)),
        lambda n, s: tokens(n, 7, 6, s),
        True,
    ),
    "embedding bag max": (
        lambda: nn.Sequential(nn.EmbeddingBag(6, 4, mode="max"), nn.Tanh(), nn.Linear(4, 3)),
        lambda n, s: tokens(n, 7, 6, s),
        True,
    ),
    "layer norm": (lambda: mlp(nn.LayerNorm(6), nn.ReLU()), FLAT, True),
    "layer norm 2d": (lambda: nn.Sequential(nn.LayerNorm((3, 4)), nn.Linear(4, 2), nn.Tanh()), SEQUENCE, True),
    "rms norm": (lambda: mlp(nn.RMSNorm(6), nn.ReLU()), SEQUENCE, True),
    "group norm": (lambda: convnet(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)), IMAGE, True),
    "instance norm": (lambda: convnet(nn.Conv2d(2, 4, 2), nn.InstanceNorm2d(4, affine=True), nn.Tanh()), IMAGE, True),
    "batch norm in eval": (batch_norm, FLAT, True),
    "prelu": (lambda: mlp(nn.PReLU()), FLAT, True),
    "prelu per channel": (lambda: convnet(nn.Conv2d(2, 3, 2), nn.PReLU(3)), IMAGE, True),
    "residual": (
        lambda: Residual(nn.Linear(4, 6), nn.ReLU(), Residual(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 4)),
        FLAT,
        True,
    ),
    "shared layer": (shared, FLAT, True),
    "shared conv": (shared_conv, IMAGE, True),
    "tied embedding": (TiedLanguage, lambda n, s: tokens(n, 5, 6, s), True),
    "functional weight": (FunctionalWeight, FLAT, False),
    "spectral norm": (lambda: parametrized(nn.utils.parametrizations.spectral_norm).eval(), FLAT, False),
    "bilinear": (lambda: nn.Bilinear(4, 3, 2), lambda n, s: (normal(n, 4, seed=s), normal(n, 3, seed=s + 7)), False),
    "attention": (lambda: First(Lambda(None)), SEQUENCE, False),
    "self attention": (OwnAttention, SEQUENCE, True),
    "vision transformer": (Patched, (1, 4, 4), True),
    "bare parameters": (Bare, SEQUENCE, True),
    "bare parameters used twice": (BareTwice, FLAT, False),
    "keywords": (Keywords, lambda n, s: {"a": normal(n, 4, seed=s), "b": normal(n, 3, seed=s + 7)}, True),
    "partly no_grad": (PartlyNoGrad, FLAT, True),
    "unused parameter": (Unused, FLAT, True),
    "returns a view": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3)), Lambda(lambda x: x.mT[:, 1:])),
        FLAT,
        True,
    ),
    "folded frames": (FoldedFrames, (2, 1, 4, 4), True),
    "time first": (TimeFirst, SEQUENCE, True),
    "queries without points": (OddBroadcast, SEQUENCE, False),
    "checkpointed": (lambda: Checkpointed(False), FLAT, True),
    "checkpointed, reentrant": (lambda: Checkpointed(True), FLAT, True),
    "compiled": (lambda: torch.compile(mlp(nn.ReLU())), FLAT, True),
    "compiled layer": (lambda: mlp(torch.compile(nn.Sequential(nn.Linear(6, 6), nn.ReLU()))), FLAT, True),
    "transformer": (transformer, SEQUENCE, True),
}
del ZOO["attention"]


def attention_zoo() -> None:
    def both(n: int, s: int) -> tuple[Tensor, Tensor]:
        return normal(n, 3, 4, seed=s), normal(n, 2, 4, seed=s + 7)

    ZOO["cross attention"] = (CrossAttention, both, True)
    ZOO["cross attention, odd sizes"] = (
        lambda: CrossAttention(kdim=3, vdim=3, add_bias_kv=False),
        lambda n, s: (normal(n, 3, 4, seed=s), normal(n, 2, 3, seed=s + 7)),
        True,
    )
    ZOO["attention with bias_kv"] = (lambda: CrossAttention(add_bias_kv=True, add_zero_attn=True), both, True)
    ZOO["transformer norm first"] = (lambda: transformer(norm_first=True, activation="gelu"), SEQUENCE, True)


def recurrent_zoo() -> None:
    for kind in (nn.RNN, nn.LSTM, nn.GRU):
        name = kind.__name__.lower()
        ZOO[name] = (lambda kind=kind: First(kind(4, 3, batch_first=True)), SEQUENCE, True)
        ZOO[name + " deep"] = (
            lambda kind=kind: First(kind(4, 3, num_layers=2, bidirectional=True, batch_first=True)),
            SEQUENCE,
            True,
        )


def weight_norm_zoo() -> None:
    new, old = nn.utils.parametrizations.weight_norm, nn.utils.weight_norm

    def twice() -> nn.Module:
        layer = new(nn.Linear(4, 4))
        return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), new(nn.Linear(4, 2, bias=False)))

    def half_frozen() -> nn.Module:
        module = nn.Sequential(new(nn.Linear(4, 5)), nn.Tanh(), new(nn.Linear(5, 2)))
        module[0].parametrizations.weight.original0.requires_grad_(False)
        module[2].parametrizations.weight.original1.requires_grad_(False)
        return module

    grouped = lambda: convnet(new(nn.Conv2d(2, 4, 3, padding=1, groups=2)), new(nn.Conv2d(4, 3, 2)))  # noqa: E731
    for name, make, shape, known in (
        ("weight norm", lambda: parametrized(new), FLAT, True),
        ("weight norm, old", lambda: parametrized(old), FLAT, True),
        ("weight norm, tokens", lambda: parametrized(new), SEQUENCE, True),
        ("weight norm, shared", twice, FLAT, True),
        ("weight norm, half frozen", half_frozen, FLAT, True),
        ("weight norm, conv1d", lambda: convnet(new(nn.Conv1d(3, 2, 2, bias=False))), SEQUENCE, True),
        ("weight norm, conv2d groups", grouped, IMAGE, True),
        ("weight norm, old conv2d", lambda: convnet(old(nn.Conv2d(2, 3, 3))), IMAGE, True),
        ("weight norm, frames", lambda: WeightNormed(FoldedFrames()), (2, 1, 4, 4), True),
        ("weight norm by columns", lambda: parametrized(lambda layer: new(layer, dim=1)), FLAT, False),
        ("weight norm, transposed", lambda: convnet(new(nn.ConvTranspose2d(2, 3, 2))), IMAGE, False),
        ("weight norm, x @ weight", lambda: WeightNormed(FunctionalWeight()), FLAT, False),
    ):
        ZOO[name] = (make, shape, known)


attention_zoo()
recurrent_zoo()
weight_norm_zoo()


def build(name: str, n: int = N, seed: int = 0) -> tuple[nn.Module, object, bool]:
    """The module in float64 with generic parameters, n inputs, and whether the rules know every parameter."""
    make, shape, known = ZOO[name]
    x = shape(n, seed) if callable(shape) else normal(n, *shape, seed=seed)
    torch.manual_seed(1)
    module = make().double()
    call = (
        (lambda m: m(**x)) if isinstance(x, dict) else (lambda m: m(*x)) if isinstance(x, tuple) else (lambda m: m(x))
    )
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        call(module)
        for p in module.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return module, x, known


def plain(module: nn.Module) -> nn.Module:
    """A copy for the oracle, without torch.compile, and without reentrant checkpoints, which refuse autograd.grad."""
    module = copy.deepcopy(module)
    for name, child in list(module.named_modules()):
        if isinstance(child, Checkpointed):
            child.reentrant = False
        if hasattr(child, "_orig_mod") and name:
            parent = module.get_submodule(name.rpartition(".")[0]) if "." in name else module
            setattr(parent, name.rpartition(".")[2], child._orig_mod)
    return getattr(module, "_orig_mod", module)
