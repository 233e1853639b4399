"""The kernel in the optimizer's metric, against J D J^T formed in float64."""

import pytest
import torch
from pytorch_optimizer import SOAP
from torch import Tensor, nn
from torch.optim import Optimizer

from spectrain import InputError, SamplePreconditioner, choose_landmarks, spectral_maps
from spectrain.kernels.weighted import Root, weighted_ntk
from spectrain.models import mlp
from spectrain.optim import apply_scales, scaled_groups
from spectrain.preconditioners import optimizer_metric
from spectrain.preconditioners.metric import nearest_outer


def trained(make: type[Optimizer], parameterization: str, outputs: int = 2) -> tuple[nn.Module, Optimizer, Tensor]:
    torch.manual_seed(0)
    network = mlp(2, outputs, width=12, depth=2, parameterization=parameterization, activation="tanh").double()
    x = torch.randn(20, 2, dtype=torch.float64)
    optimizer = apply_scales(make(scaled_groups(network), lr=0.01))
    for _ in range(4):
        optimizer.zero_grad()
        (network(x) - x[:, :1].sin()).square().mean().backward()
        optimizer.step()
    return network, optimizer, x


def jacobian(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """[n, C, *shape] of every parameter."""
    params = {name: p.detach() for name, p in network.named_parameters()}
    return torch.func.jacrev(lambda q: torch.func.functional_call(network, q, x))(params)


def dense(root: Tensor) -> Tensor:
    return torch.diag(root) if root.ndim == 1 else root


@pytest.mark.parametrize("make", [SOAP, torch.optim.Adam])
@pytest.mark.parametrize("parameterization", ["standard", "ntk"])
def test_kernel_is_j_d_j_transposed(make: type[Optimizer], parameterization: str) -> None:
    network, optimizer, x = trained(make, parameterization)
    roots = optimizer_metric(network, optimizer)
    K = torch.zeros(len(x), len(x), dtype=torch.float64)
    for name, J in jacobian(network, x).items():
        root = roots[name]
        if root.inputs is None:
            G = J * root.outputs
        else:
            G = torch.einsum("ncod,op,de->ncpe", J, dense(root.outputs), dense(root.inputs))
        G = G.flatten(2)
        K += torch.einsum("ncp,mcp->nm", G, G) / J.shape[1]
    torch.testing.assert_close(weighted_ntk(network, x, roots=roots), K, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(weighted_ntk(network, x[:5], x[5:], roots=roots), K[:5, 5:], rtol=1e-10, atol=1e-12)


def test_metric_of_soap_is_its_step_when_v_is_an_outer_product() -> None:
    network, optimizer, _ = trained(SOAP, "standard")
    weight = network[2].weight
    state = optimizer.state[weight]
    a, b = torch.rand(12, dtype=torch.float64) + 0.1, torch.rand(12, dtype=torch.float64) + 0.1
    state["exp_avg_sq"] = (1 / (a[:, None] * b) ** 2).clone()
    left, right = state["Q"]
    gradient = torch.randn(12, 12, dtype=torch.float64)
    step = left @ ((left.T @ gradient @ right) / state["exp_avg_sq"].sqrt()) @ right.T
    root = optimizer_metric(network, optimizer)["2.weight"]
    assert root.inputs is not None
    D_gradient = root.outputs @ root.outputs.T @ gradient @ root.inputs @ root.inputs.T
    torch.testing.assert_close(D_gradient, step, rtol=1e-5, atol=1e-8)  # eps of the optimizer


def test_nearest_outer_is_exact_on_outer_products_and_best_otherwise() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(5, generator=generator) + 0.1, torch.rand(3, generator=generator) + 0.1
    left, right = nearest_outer(a[:, None] * b)
    torch.testing.assert_close(left[:, None] * right, a[:, None] * b)
    D = torch.rand(5, 3, generator=generator) + 0.1
    left, right = nearest_outer(D)
    best = (D.log() - (left[:, None] * right).log()).norm()
    for _ in range(20):
        other = left * (1 + 0.1 * torch.randn(5, generator=generator))
        assert best < (D.log() - (other[:, None] * right).log()).norm()


def test_metric_before_the_first_step_is_the_identity() -> None:
    network = mlp(2, 1, width=8, depth=2)
    optimizer = SOAP(network.parameters(), lr=0.01)
    assert all(bool((root.outputs == 1).all()) for root in optimizer_metric(network, optimizer).values())
    x = torch.randn(6, 2)
    network(x).sum().backward()
    optimizer.step()  # SOAP's first step only fills its statistics
    assert all(bool((root.outputs == 1).all()) for root in optimizer_metric(network, optimizer).values())


def test_refusals() -> None:
    network, optimizer, x = trained(torch.optim.SGD, "standard")
    assert all(bool((root.outputs == 1).all()) for root in optimizer_metric(network, optimizer).values())
    network, optimizer, x = trained(torch.optim.Adagrad, "standard")
    with pytest.raises(InputError, match="exp_avg_sq"):
        optimizer_metric(network, optimizer)
    conv = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(4, 1))
    roots = {name: Root(torch.ones_like(p)) for name, p in conv.named_parameters()}
    with pytest.raises(InputError, match="neither"):
        weighted_ntk(conv, torch.randn(3, 1, 4), roots=roots)
    with pytest.raises(InputError, match="Nystroem"):
        choose_landmarks(x, 5, extension="nystrom").spectrum(network, 3, optimizer=optimizer)


def test_refresh_with_the_optimizer_takes_the_modes_of_its_kernel() -> None:
    network, optimizer, x = trained(SOAP, "standard", outputs=1)
    S = SamplePreconditioner(spectral_maps.power(0.5))
    spectrum = S.refresh(network, x, rank=4, optimizer=optimizer)
    K = weighted_ntk(network, x, roots=optimizer_metric(network, optimizer)) / len(x)
    V = spectrum.eigenvectors
    torch.testing.assert_close(K @ V, V * spectrum.eigenvalues, rtol=1e-6, atol=1e-8 * float(spectrum.eigenvalues[0]))
    plain = S.refresh(network, x, rank=4)
    assert float((plain.eigenvectors.T @ V).diagonal().abs().min()) < 0.999
