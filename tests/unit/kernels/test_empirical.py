import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from spectrain.errors import InputError
from spectrain.kernels import Tape, empirical_ntk, register_rule

from .oracle import kernel, relative_error

OUTPUTS = ("trace", "sum", "full")


def mlp(outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 6, bias=False), nn.Tanh(), nn.Linear(6, outputs)
    ).double()


def points(n: int, d: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Unknown(nn.Module):
    """A layer with a parameter that no rule knows."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 4, dtype=torch.float64))
        self.inner = nn.Linear(4, 4, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x * self.scale.sin())


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("method", ["auto", "layerwise", "jacobian"])
@pytest.mark.parametrize("cross", [False, True])
def test_mlp_equals_the_explicit_jacobian(outputs: str, method: str, cross: bool) -> None:
    x1, x2 = points(6), points(5, seed=1) if cross else None
    got = empirical_ntk(mlp(), x1, x2, outputs=outputs, method=method)
    assert relative_error(got, kernel(mlp(), x1, x2, outputs)) < 1e-12


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_tokens_and_shared_layers_contribute_their_cross_terms(outputs: str) -> None:
    shared = nn.Linear(4, 4, dtype=torch.float64)
    module = nn.Sequential(shared, nn.Tanh(), shared, nn.Flatten(), nn.Linear(12, 2, dtype=torch.float64))
    x = points(5, 12).view(5, 3, 4)
    assert (
        relative_error(empirical_ntk(module, x, outputs=outputs, method="layerwise"), kernel(module, x, None, outputs))
        < 1e-12
    )


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_unknown_parameters_take_the_jacobian_path(outputs: str) -> None:
    module = nn.Sequential(Unknown(), nn.ReLU(), nn.Linear(4, 2, dtype=torch.float64))
    x = points(5)
    assert relative_error(empirical_ntk(module, x, outputs=outputs), kernel(module, x, None, outputs)) < 1e-12
    with pytest.raises(InputError, match=r"0\.scale"):
        empirical_ntk(module, x, method="layerwise")


def test_a_weight_used_functionally_is_not_forgotten() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3, dtype=torch.float64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).tanh() @ self.layer.weight

    x = points(5)
    assert relative_error(empirical_ntk(Tied(), x), kernel(Tied(), x)) > 0.01  # two networks: two kernels
    module = Tied()
    assert relative_error(empirical_ntk(module, x), kernel(module, x)) < 1e-12


def test_frozen_parameters_are_left_out_and_params_selects() -> None:
    module = mlp()
    module[0].weight.requires_grad_(False)
    assert relative_error(empirical_ntk(module, points(5)), kernel(module, points(5))) < 1e-12
    parts = [
        empirical_ntk(module, points(5), params=[name]) for name, p in module.named_parameters() if p.requires_grad
    ]
    assert relative_error(sum(parts), kernel(module, points(5))) < 1e-12


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_the_module_is_as_it_was(training: bool, context: type) -> None:
    module = mlp().train(training)
    calls = []
    module[0].register_forward_hook(lambda *args: calls.append(1))
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    before = {name: p.clone() for name, p in module.state_dict().items()}
    state, hooks = torch.get_rng_state(), len(module[0]._forward_hooks)
    with context():
        K = empirical_ntk(module, points(5))
        assert torch.is_grad_enabled() == (context is torch.enable_grad)
    assert relative_error(K.clone(), kernel(mlp(), points(5))) < 1e-12
    assert module.training == training
    assert torch.equal(torch.get_rng_state(), state)
    assert len(module[0]._forward_hooks) == hooks
    assert all("forward" not in vars(child) for child in module.modules())
    assert all(torch.equal(p.grad, torch.ones_like(p)) and p.requires_grad for p in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_the_module_is_as_it_was_after_an_exception() -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4, dtype=torch.float64)
            self.register_buffer("seen", torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.layer(x)
            self.seen.mul_(2)
            torch.rand(1)
            raise RuntimeError("broken")

    module = Breaks().train()
    module.layer.weight.grad = torch.ones(4, 4, dtype=torch.float64)
    handle = module.layer.register_forward_hook(lambda *args: None)
    state, weight, precision = torch.get_rng_state(), module.layer.weight, torch.get_float32_matmul_precision()
    with torch.no_grad(), pytest.raises(RuntimeError, match="broken"):
        empirical_ntk(module, points(5))
    assert module.training
    assert module.layer.weight is weight
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert torch.equal(module.seen, torch.ones(3))
    assert list(module.layer._forward_hooks) == [handle.id]
    assert "forward" not in vars(module.layer)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_float32_matmul_precision() == precision


def test_tensors_that_the_forward_leaves_on_modules_are_those_of_before() -> None:
    class Remembers(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = super().forward(x)
            return self.seen

    with pytest.warns(FutureWarning, match="weight_norm"):
        module = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3)), Remembers(3, 2)).double()
    weight = module[0].weight
    K = empirical_ntk(module, points(5))
    assert module[0].weight is weight
    assert "seen" not in vars(module[1])
    module(points(5))
    assert relative_error(empirical_ntk(module, points(5)), K) < 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_networks_are_computed_in_float32(dtype: torch.dtype) -> None:
    module = mlp().to(dtype)
    K = empirical_ntk(module, points(5).to(dtype))
    assert K.dtype == torch.float32
    assert relative_error(K, kernel(module, points(5).to(dtype))) < 1e-5
    assert empirical_ntk(module, points(5), dtype=torch.float64).dtype == torch.float64
    assert module[0].weight.dtype == dtype


def test_inplace_activations_and_inputs_of_one_axis() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 1), nn.Flatten(0)).double()
    x = points(5)
    assert relative_error(empirical_ntk(module, x, method="layerwise"), kernel(module, x)) < 1e-12


def test_a_registered_rule_is_used() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4, dtype=torch.float64))
            self.bias = nn.Parameter(torch.randn(3, dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x * 0.5, self.weight, 0.1 * self.bias)

    @register_rule(Scaled)
    def scaled(tape: Tape, module: Scaled, x: torch.Tensor) -> torch.Tensor:
        return tape.linear(x * 0.5, module.weight, module.bias, bias_scale=0.1)

    module = nn.Sequential(Scaled(), nn.Tanh(), Scaled().requires_grad_(False) if False else nn.Linear(3, 2)).double()
    x = points(5)
    assert relative_error(empirical_ntk(module, x, method="layerwise"), kernel(module, x)) < 1e-12


def test_wrong_choices_are_refused() -> None:
    for bad in ({"outputs": "all"}, {"method": "magic"}, {"params": ["nowhere"]}):
        with pytest.raises(InputError, match=next(iter(bad))):
            empirical_ntk(mlp(), points(3), **bad)
    with pytest.raises(InputError, match="frozen"):
        empirical_ntk(mlp().requires_grad_(False), points(3))
    with pytest.raises(InputError, match="no points"):
        empirical_ntk(mlp(), points(0))


def test_two_processes_compute_the_same_bits() -> None:
    """A run that is resumed in another process must see the same kernel; hashes of names differ between processes."""
    code = (
        "import torch; from torch import nn; from spectrain.kernels import empirical_ntk; torch.manual_seed(0);"
        "torch.set_num_threads(1);"
        "r = nn.ReLU(); m = nn.Sequential(nn.Linear(3, 50), r, nn.Linear(50, 50), r, nn.Linear(50, 1));"
        "print(empirical_ntk(m, torch.randn(20, 3)).double().numpy().tobytes().hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


@pytest.mark.parametrize("method", ["auto", "jacobian"])
def test_buffers_that_the_forward_updates_stay_as_they_were(method: str) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)
            self.register_buffer("calls", torch.zeros((), dtype=torch.long))
            self.register_buffer("seen", torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            self.seen.mul_(2)
            return self.layer(x)

    module = Counts().double()
    empirical_ntk(module, points(5), method=method)
    assert int(module.calls) == 0
    assert torch.equal(module.seen, torch.ones(3, dtype=torch.float64))
