"""What has no kernel is refused; the message names the module and the way out."""

import pytest
import torch
from torch import Tensor, nn

from spectrain.errors import InputError
from spectrain.kernels import empirical_ntk

from .oracle import kernel, relative_error
from .zoo import Lambda, mlp, normal


def around(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), layer, nn.Linear(6, 2)).double()


class BatchMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Nan(nn.Module):
    def __init__(self, beyond: float) -> None:
        super().__init__()
        self.beyond = beyond

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x.abs().amax(1, keepdim=True) > self.beyond, torch.nan, x)


class FunctionalDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, self.training)


class Hidden(nn.Module):
    """Holds its layer's weight in a list too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.list = [self.layer.weight]

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) @ self.list[0]


@pytest.mark.parametrize("method", ["auto", "layerwise", "jacobian"])
@pytest.mark.parametrize(
    ("module", "words"),
    [
        (around(nn.BatchNorm1d(6)), r"BatchNorm1d '1'.*module\.eval\(\)"),
        (around(nn.BatchNorm1d(6, track_running_stats=False)).eval(), r"BatchNorm1d '1'"),
        (around(nn.Dropout(0.5)), r"Dropout '1'.*module\.eval\(\)"),
        (around(FunctionalDropout()), r"FunctionalDropout '1' draws random.*module\.eval\(\)"),
        (around(BatchMean()), r"BatchMean '1'.*other points.*LayerNorm"),
        (around(Nan(0.0)), r"Nan '1'.*not finite"),
        (nn.Sequential(nn.Linear(4, 2), nn.LSTM(2, 3, 2, dropout=0.3)).double(), r"LSTM '1'.*module\.eval\(\)"),
        (nn.MultiheadAttention(4, 2, dropout=0.1).double(), r"MultiheadAttention.*module\.eval\(\)"),
        (nn.LazyLinear(3), "LazyLinear.*once"),
        (torch.jit.trace(mlp(nn.ReLU()), torch.ones(2, 4)), "TorchScript"),
        (nn.LSTM(4, 3).double(), "LSTM returned a tuple"),
        (nn.Sequential(nn.Linear(4, 2), Lambda(lambda x: x.sum())).double(), r"shape \(\) for"),
        (nn.Sequential(nn.Linear(4, 2), Lambda(lambda x: x.detach())).double(), "zero everywhere"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else value,
)
def test_refused_with_its_name(module: nn.Module, words: str, method: str) -> None:
    x = normal(3, 2, 4) if "LSTM" in words else normal(6, 4)
    if words == "zero everywhere" and method == "jacobian":
        pytest.skip("an explicit Jacobian shows that the kernel is zero")
    with pytest.raises(InputError, match=words):
        empirical_ntk(module, x, method=method)


def test_numbers_that_are_not_finite_far_from_the_first_points() -> None:
    x = normal(50, 4) * 0.1
    x[40] = 1e3
    with pytest.raises(InputError, match=r"Nan '1'"):
        empirical_ntk(around(Nan(10.0)), x)


def test_inactive_dropout_and_batch_norm_in_eval_are_fine() -> None:
    module = nn.Sequential(around(nn.BatchNorm1d(6)), nn.Dropout(0.5)).double().eval()
    assert relative_error(empirical_ntk(module, normal(5, 4)), kernel(module, normal(5, 4))) < 1e-12
    assert empirical_ntk(around(nn.Dropout(0.0)), normal(5, 4)).shape == (5, 5)


def test_parameters_held_elsewhere_are_refused() -> None:
    with pytest.raises(InputError, match=r"layer\.weight"):
        empirical_ntk(Hidden().double(), normal(5, 4))


def test_inputs_changed_in_place_are_refused() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = x * 2
            y = self.layer(h)
            h.mul_(3)
            return y + h

    with pytest.raises(InputError, match="in place"):
        empirical_ntk(InPlace().double(), normal(5, 4))


def test_inputs_and_results_that_do_not_fit() -> None:
    module = mlp(nn.ReLU()).double()
    with pytest.raises(InputError, match="share their first axis"):
        empirical_ntk(nn.Bilinear(4, 4, 2).double(), (normal(5, 4), normal(6, 4)))
    with pytest.raises(InputError, match="out has shape"):
        empirical_ntk(module, normal(5, 4), out=torch.empty(4, 5))
    with pytest.raises(InputError, match="per_parameter"):
        empirical_ntk(module, normal(5, 4), out=torch.empty(5, 5), per_parameter=True)
    for budget in ("much", "-1GiB", 0, -5):
        with pytest.raises(InputError, match="memory_budget"):
            empirical_ntk(module, normal(5, 4), memory_budget=budget)
    with pytest.raises(InputError, match="memory_budget is too small"):
        empirical_ntk(module, normal(5, 4), memory_budget=100)


def test_data_dependent_paths_take_the_jacobian() -> None:
    class Choice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([(self.a if row[0] > 0 else self.b)(row) for row in x])

    module, x = Choice().double(), normal(7, 4)
    assert relative_error(empirical_ntk(module, x), kernel(module, x)) < 1e-12
