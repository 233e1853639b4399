"""Columns of a Jacobian, formed in the room that is given for them."""

import pytest
import torch

from spectrain.kernels.factors import Dense, Factor, Geometry, Outer, Patches

from .zoo import normal

GEOMETRY = Geometry((2, 2), (1, 1), (0, 0), (1, 1), 2)
FACTORS = {
    "outer": Outer(normal(3, 4, 5), normal(3, 2, 4, 6), 0.5),
    "one output": Outer(normal(3, 4, 5), normal(3, 2, 4, 6)).output(1),
    "patches": Patches(GEOMETRY, 1.0, False, normal(3, 1, 4, 5, 5), normal(3, 2, 1, 6, 4, 4)),
    "dense": Dense(normal(3, 2, 7)),
}


@pytest.mark.parametrize("name", FACTORS)
def test_they_are_the_same_in_a_larger_room(name: str) -> None:
    factor: Factor = FACTORS[name]
    want = factor.columns(1, 3)
    room = torch.full((want.numel() + 10,), torch.nan, dtype=torch.float64)
    found = factor.columns(1, 3, room)
    assert torch.equal(found, want)
    assert (found.data_ptr() == room.data_ptr()) == factor.fills_room
    assert bool(room[-10:].isnan().all())
