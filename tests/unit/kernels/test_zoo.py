"""Every module of the zoo against an explicit float64 Jacobian."""

import pytest
import torch

from spectrain.errors import InputError
from spectrain.kernels import empirical_ntk

from .oracle import jacobian, relative_error
from .zoo import ZOO, build, plain

TOLERANCE = 1e-10


@pytest.mark.parametrize("name", ZOO)
def test_every_module_equals_the_explicit_jacobian(name: str) -> None:
    module, x, known = build(name)
    _, z, _ = build(name, n=4, seed=1)
    j, jz = jacobian(plain(module), x), jacobian(plain(module), z)
    C = j.shape[1]
    full, cross = torch.einsum("icp,jep->ijce", j, j), torch.einsum("icp,jep->ijce", j, jz)
    method = "layerwise" if known else "auto"
    assert relative_error(empirical_ntk(module, x, outputs="full", method=method), full) < TOLERANCE
    assert relative_error(empirical_ntk(module, x, z, outputs="full"), cross) < TOLERANCE
    trace = torch.einsum("ijcc->ij", cross) / C
    assert relative_error(empirical_ntk(module, x, z, outputs="trace"), trace) < TOLERANCE
    assert relative_error(empirical_ntk(module, x, outputs="trace"), torch.einsum("ijcc->ij", full) / C) < TOLERANCE
    assert relative_error(empirical_ntk(module, x, z, outputs="sum"), cross.sum((2, 3)) / C) < TOLERANCE
    if not known:
        with pytest.raises(InputError, match="rule"):
            empirical_ntk(module, x, method="layerwise")


@pytest.mark.parametrize("name", ZOO)
def test_the_jacobian_method_agrees(name: str) -> None:
    module, x, _ = build(name)
    want = empirical_ntk(module, x)
    assert relative_error(empirical_ntk(module, x, method="jacobian"), want) < TOLERANCE


@pytest.mark.parametrize("name", ["shared layer", "shared conv", "tied embedding"])
def test_a_module_that_is_used_twice_keeps_its_own_parameters(name: str) -> None:
    module, x, _ = build(name)
    before = list(module.parameters())
    empirical_ntk(module, x)
    assert all(one is two for one, two in zip(module.parameters(), before, strict=True))
