"""The factored linearization against an explicit float64 Jacobian, and the checks before the first step."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spectrain import InputError, SpectrainWarning
from spectrain.models import mlp
from spectrain.pde import Condition, Equation, Field, HardConditions, Problem, box, grad_u, laplace_u, sampled, u

from .equations_for_tests import NETWORKS, Mixture, Normed, network


def problem(net: nn.Module, equation: Equation | None = None, **settings: Any) -> Problem:
    return Problem(equation or Mixture(), net, **{"points": 9, "boundary_points": 5, **settings})


def residuals(made: Problem, seed: int = 0) -> Any:
    return made.residuals(made.draw(torch.Generator().manual_seed(seed)))


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_factored_form_is_exact(name: str) -> None:
    made = problem(network(name))
    assert made.by_jets, made.why_not
    r = residuals(made)
    lin, oracle = r.linearize(), r.explicit()
    J = oracle.jacobian()
    n, P = J.shape
    assert (n, P) == (2 * 9 + 5 + 5 + 4, sum(p.numel() for p in made.parameters()))
    v, d = torch.randn(n, dtype=torch.float64), torch.randn(P, dtype=torch.float64)
    assert relative(lin.r, oracle.r) < 1e-12
    assert relative(r().detach(), oracle.r) < 1e-12
    assert relative(lin.jacobian(), J) < 1e-12
    assert relative(lin.gram(), J @ J.T) < 1e-12
    assert relative(lin.push(d), J @ d) < 1e-12
    assert relative(lin.pull(v), J.T @ v) < 1e-12


@pytest.mark.parametrize("name", ["skip", "siren"])
def test_the_normal_matrix_is_added_up_over_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    r = residuals(problem(network(name)))
    lin, J = r.linearize(), r.explicit().jacobian()
    monkeypatch.setattr("spectrain.optim.factored._WORKSPACE", 2 * 8 * J.shape[1])  # two rows at a time
    assert relative(lin.normal(), J.T @ J) < 1e-12
    assert relative(lin.diagonal(), J.square().sum(1)) < 1e-12


def test_the_gradient_of_the_loss_is_that_of_the_jacobian() -> None:
    made = problem(network("skip"))
    r = residuals(made)
    r.loss().backward()
    gradient = torch.cat([p.grad.flatten() for p in made.parameters()])  # type: ignore[union-attr]
    lin = r.linearize()
    assert relative(gradient, lin.pull(lin.r)) < 1e-12


def test_other_networks_take_the_jacobian_path() -> None:
    torch.manual_seed(0)
    made = problem(Normed().double())
    assert "layer_norm" in str(made.why_not)
    r = residuals(made)
    lin = r.linearize()
    r.loss().backward()
    gradient = torch.cat([p.grad.flatten() for p in made.parameters()])  # type: ignore[union-attr]
    assert relative(lin.pull(lin.r), gradient) < 1e-12
    assert lin.gram().shape == (32, 32)


def test_a_parameter_outside_linear_layers_takes_the_jacobian_path() -> None:
    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.slope = nn.Linear(2, 2), nn.Parameter(torch.tensor(0.5))

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.slope * self.layer(x))

    made = problem(Slope().double())
    assert not made.by_jets
    assert residuals(made).linearize().parameters == 8  # slope and coefficient included


def test_frozen_parameters_are_left_out() -> None:
    net = network("tanh, ntk")
    next(net.parameters()).requires_grad_(False)
    r = residuals(problem(net))
    assert relative(r.linearize().jacobian(), r.explicit().jacobian()) < 1e-12


def test_the_rows_are_weighted_so_that_the_loss_is_a_sum_of_means() -> None:
    made = problem(network("tanh, ntk"), weights={"boundary": 7.0})
    r = residuals(made)
    weights = {"interior": 1.0, "boundary": 7.0, "slope": 1.0, "data": 1.0}
    total = torch.zeros((), dtype=torch.float64)
    for name, part in r.points.items():
        raw = made.conditions[name].residual(made_field(made, part))
        total = total + 0.5 * weights[name] * raw.square().sum() / len(part.x)
    assert float(r.loss().detach()) == pytest.approx(float(total.detach()), rel=1e-12)


def made_field(made: Problem, part: Any) -> Field:
    from spectrain.pde.fields import PointField

    return PointField(lambda x: made.network(x[None])[0], part.x, part.data, made.coefficients())


def test_hard_conditions_hold_exactly_and_stay_factored() -> None:
    net = HardConditions(
        network("tanh, ntk"), bubble=lambda x: x[:, :1] * (1 - x[:, :1]), lift=lambda x: torch.sin(x[:, 1:])
    )
    made = problem(net)
    assert made.by_jets
    r = residuals(made)
    assert relative(r.linearize().gram(), r.explicit().gram()) < 1e-12
    edge = torch.tensor([[0.0, 0.3], [1.0, -0.4]], dtype=torch.float64)
    assert torch.allclose(net(edge), torch.sin(edge[:, 1:]).expand(2, 2))


class Simple(Equation):
    domain = box([0.0, 0.0], [1.0, 1.0])

    def residual(self, field: Field) -> Any:
        return laplace_u(field)


def one_output(activation: str = "tanh") -> nn.Module:
    torch.manual_seed(0)
    return mlp(2, 1, width=6, depth=2, activation=activation).double()


def with_(**attributes: Any) -> Equation:
    return type("Simple", (Simple,), attributes)()


def empty(n: int, generator: torch.Generator) -> Tensor:
    return torch.zeros(0, 2)


BAD = {
    "the residual is": with_(residual=lambda self, f: laplace_u(f)[:2]),
    "must be a tensor": with_(residual=lambda self, f: 3.0),
    "not finite": with_(residual=lambda self, f: laplace_u(f) / 0),
    "gave no points": with_(domain=sampled(empty, [0, 0], [1, 1])),
    "neither a sampler nor points": with_(conditions=lambda self: [Condition("edge", lambda f: u(f))]),
    "must be a finite number above 0": with_(
        conditions=lambda self: [Condition("edge", lambda f: u(f), self.domain.boundary, weight=0.0)]
    ),
    "needs a name of its own": with_(conditions=lambda self: [Condition("interior", lambda f: u(f))]),
    r"needs \(3, 2\)": with_(outputs=2),
    "does not take points of 3": with_(domain=box([0, 0, 0], [1, 1, 1])),
    "along input 5": with_(residual=lambda self, f: laplace_u(f, dims=[5])),
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_used_is_refused_by_name(message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        problem(one_output(), BAD[message])
    assert "Simple" in str(error.value) or "input 5" in str(error.value)


@pytest.mark.parametrize("kinked", [nn.ReLU(), nn.LeakyReLU()])
def test_kinks_under_second_derivatives_are_refused(kinked: nn.Module) -> None:
    net = nn.Sequential(nn.Linear(2, 4), kinked, nn.Linear(4, 1)).double()
    with pytest.raises(InputError, match=r"tanh, sine or gelu"):
        problem(net, Simple())
    first_order = with_(residual=lambda self, f: grad_u(f)[:, 0] - 1)
    assert not problem(net, first_order).by_jets


def test_single_precision_warns() -> None:
    with pytest.warns(SpectrainWarning, match="float32"):
        problem(one_output().float(), Simple())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem(one_output(), Simple())


@pytest.mark.parametrize("weight", ["abc", [1], None, float("inf"), -1])
def test_a_weight_that_is_not_a_number_above_0_is_refused(weight: Any) -> None:
    with pytest.raises(InputError, match=r"Simple: the weight of interior is .*; it must be a finite number above 0"):
        problem(one_output(), Simple(), weights={"interior": weight})


def test_weights_in_place_of_the_problems_own() -> None:
    made = problem(network("tanh, ntk"))
    points = made.draw(torch.Generator().manual_seed(0))
    doubled = {name: 2 * weight for name, weight in made.weights.items()}
    own, other = made.residuals(points), made.residuals(points, doubled)
    assert float(other.loss()) == pytest.approx(2 * float(own.loss()), rel=1e-12)
    again = made.at({name: part.x for name, part in points.items()})
    assert torch.equal(made.residuals(again)(), own())


def test_an_unknown_weight_is_refused() -> None:
    with pytest.raises(InputError, match="no condition 'edge'"):
        problem(one_output(), Simple(), weights={"edge": 1.0})
