"""Modules written for the zoo: odd shapes, odd uses of parameters, odd ways of being called."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

POINTS = 5


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(*args)


class First(nn.Module):
    """The first of several outputs of a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)[0]


class Residual(nn.Module):
    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class CrossAttention(nn.Module):
    def __init__(self, **kwargs: object) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, **kwargs)

    def forward(self, q: Tensor, kv: Tensor) -> Tensor:
        return self.attention(q, kv, kv, need_weights=False)[0]


class OwnAttention(nn.Module):
    """A plain scaled_dot_product_attention block with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(4), nn.Linear(4, 12), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        return x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Patched(nn.Module):
    """A small vision transformer: class token, positions, layer scale as bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 4, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.position = nn.Parameter(torch.randn(1, 5, 4))
        self.block, self.gamma, self.head = OwnAttention(), nn.Parameter(torch.randn(4)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.head((x + self.gamma * self.block(x))[:, 0])


class Bare(nn.Module):
    """Parameters of its own in every form that is recorded; one of them also scales a Linear layer's bias."""

    def __init__(self) -> None:
        super().__init__()
        self.position, self.gamma = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(4))
        self.scale, self.weight = nn.Parameter(torch.randn(())), nn.Parameter(torch.randn(5, 4))
        self.late, self.bias = nn.Parameter(torch.randn(3, 1, 5)), nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        h = (self.gamma * (x + self.position)).tanh() * self.scale
        h = torch.add(F.linear(h, self.weight, self.bias), self.position.new_zeros(())).tanh()
        return (h.transpose(0, 1) * self.late + self.bias).sin().sum(0)


class BareTwice(nn.Module):
    """One parameter in a form that is recorded and in one that is not, and a sum of parameters alone."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x * self.gamma / self.gamma.norm() + (self.beta + self.gamma))


class TiedLanguage(nn.Module):
    """An embedding whose weight is the output layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix = nn.Embedding(6, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.table(x)).tanh().mean(1))


class FunctionalWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).tanh() @ self.layer.weight


class Keywords(nn.Module):
    """A module, and a layer inside it, called with keyword arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, *, a: Tensor, b: Tensor) -> Tensor:
        return self.layer(input=a) * b


class PartlyNoGrad(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.body(x).tanh()
        return self.head(x)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.spare = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class FoldedFrames(nn.Module):
    """Frames folded into the batch axis for a convolution, and tokens for a Linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 2, 3), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, frames = x.shape[:2]
        h = self.conv(x.flatten(0, 1)).relu().flatten(2).transpose(1, 2)
        return self.linear(h.reshape(-1, 2)).tanh().view(n, -1).view(n, frames, -1).sum(1)


class TimeFirst(nn.Module):
    """Time is the first axis, the points the second."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 3), nn.LayerNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x.transpose(0, 1)).tanh()).sum(0)


class OddBroadcast(nn.Module):
    """A Linear layer on learned queries that do not have the points among their axes."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.q, self.k = nn.Parameter(torch.randn(POINTS, 4)), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("qd,ntd->nq", self.q(self.queries), self.k(x)).tanh()


class Checkpointed(nn.Module):
    """A segment whose activations are thrown away and computed again during backward."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.segment, self.head = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4)), nn.Linear(4, 2)
        self.scale, self.reentrant = nn.Parameter(torch.ones(4)), reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.segment, x * self.scale, use_reentrant=self.reentrant))


class WeightNormed(nn.Module):
    """A module whose Linear and convolution layers are weight-normalised."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        for layer in module.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                nn.utils.parametrizations.weight_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)
