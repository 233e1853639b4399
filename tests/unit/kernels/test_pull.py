"""J^T Z of every module of the zoo against an explicit float64 Jacobian, in each parameter's own order."""

import pytest
import torch

from spectrain.kernels.network import Network, undisturbed
from spectrain.kernels.pull import pull

from .oracle import jacobian
from .zoo import ZOO, N, build, plain


@pytest.mark.parametrize("name", ZOO)
def test_every_module_equals_the_explicit_jacobian(name: str) -> None:
    module, x, _ = build(name)
    J = jacobian(plain(module), x)
    Z = torch.randn(N, J.shape[1], 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    network = Network(module)
    found = {p: torch.empty(3, *value.shape, dtype=value.dtype) for p, value in network.params.items()}
    with undisturbed(network):
        for columns, parts in pull(network, x, Z, 2):
            for p, rows in parts.items():
                found[p][columns] = rows
    flat = torch.cat([found[p].view(3, -1) for p in network.params], 1)
    torch.testing.assert_close(flat, torch.einsum("ncp,nck->kp", J, Z), rtol=1e-9, atol=1e-11)
