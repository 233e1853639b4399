"""The kernel of a batch in its three forms, against the kernel engine's."""

import pytest
import torch
from torch import Tensor, nn

from spectrain import empirical_ntk
from spectrain.kernels.capture import Factors
from spectrain.kernels.live import factors_live, plan_live, record_live
from spectrain.models import mlp
from spectrain.preconditioners.batch_kernel import batch_kernel, chosen_rows, gram, nystrom_root
from spectrain.spectrum.solvers import LinAlgError


def made(n: int = 60, width: int = 16, C: int = 1) -> tuple[nn.Module, Tensor, Factors]:
    torch.manual_seed(0)
    network, x = mlp(3, C, width=width, depth=2).double(), torch.randn(n, 3, dtype=torch.float64)
    live = plan_live(network, x, "trace")
    output, uses = record_live(network, x, live)
    return network, x, factors_live(output, uses, live, network, x)


@pytest.mark.parametrize("C", [1, 3])
@pytest.mark.parametrize(("n", "width"), [(60, 16), (60, 2)])
def test_every_form_is_the_kernel(n: int, width: int, C: int) -> None:
    """With width 2 there are fewer parameters than points, and the kernel is never formed."""
    network, x, factors = made(n, width, C)
    K = empirical_ntk(network, x)
    identity = torch.eye(n, dtype=torch.float64)
    for landmarks in (None, n, 10 * n):
        torch.testing.assert_close(batch_kernel(factors, landmarks) @ identity, K, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gram(factors, torch.tensor([5, 2])), K[:, [5, 2]], rtol=1e-10, atol=1e-12)


def test_landmarks_give_the_nystroem_approximation() -> None:
    network, x, factors = made()
    K, rows = empirical_ntk(network, x), chosen_rows(60, 20)
    W = K[rows][:, rows]
    approximation = batch_kernel(factors, 20) @ torch.eye(60, dtype=torch.float64)
    torch.testing.assert_close(approximation, K[:, rows] @ torch.linalg.solve(W, K[rows]), rtol=1e-6, atol=1e-8)
    assert torch.linalg.eigvalsh(K - approximation).min() > -1e-9 * float(K.trace())  # never larger than K


def test_landmarks_are_spread_and_always_the_same() -> None:
    rows = chosen_rows(1000, 100)
    assert len(rows.unique()) == 100 and rows.max() > 900
    state = torch.get_rng_state()
    assert torch.equal(rows, chosen_rows(1000, 100))
    assert torch.equal(state, torch.get_rng_state())


def test_repeated_points_are_fine() -> None:
    K = torch.ones(8, 3)
    V = nystrom_root(K, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(V @ V.T, torch.ones(8, 8), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_what_is_no_kernel_is_refused(value: float) -> None:
    with pytest.raises(LinAlgError):
        nystrom_root(torch.full((8, 3), value), torch.tensor([0, 1, 2]))
