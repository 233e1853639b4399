"""FSDP2: the sample side beside sharded parameters, refreshed with a whole copy; what needs whole ones says so."""

from pathlib import Path

import pytest
from runs_for_fsdp import problem, train

from processes import run_ranks

SOURCE = Path(__file__).parents[3] / "src"
WORKER = """
import copy
from runs_for_fsdp import *
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
dist.init_process_group("gloo")
network, x, y = problem()
whole = copy.deepcopy(network)
mesh = init_device_mesh("cpu", (2,))
for layer in (network[0], network[2], network):
    fully_shard(layer, mesh=mesh)
refusals = [message(lambda: spectrain.empirical_ntk(network, x)),
            message(lambda: spectrain.ParameterPreconditioner(spectrain.spectral_maps.flatten()).refresh(network, x))]
losses = train(network, x, y, whole, slice(0, 25) if rank == 0 else slice(25, None), shared=True)
leave({"losses": losses, "refusals": refusals})
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_with_sharded_parameters_train_as_one_process(tmp_path: Path) -> None:
    found = run_ranks(WORKER, 2, tmp_path, SOURCE, Path(__file__).parent)
    network, x, y = problem()
    expected = train(network, x, y, network, slice(None), shared=False)
    assert expected[-1] < 0.9 * expected[0]
    for rank in found:
        assert rank["losses"] == pytest.approx(expected, rel=1e-10)
        assert all("is sharded over ranks" in text for text in rank["refusals"]), rank["refusals"]
