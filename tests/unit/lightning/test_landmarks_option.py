"""spectrum.landmarks reaches the choice of landmarks."""

import pytest
import torch

from spectrain import InputError
from spectrain.lightning import SpectrumCallback


class Picture:
    grid_shape = (12, 12)


def test_the_callback_passes_the_choice_of_landmarks_on() -> None:
    x = torch.cartesian_prod(torch.linspace(-1, 1, 12), torch.linspace(-1, 1, 12))

    def chosen(**settings: str) -> object:
        return SpectrumCallback(rank=4, subset_size=36, **settings).landmarks(Picture, x)

    assert chosen().axes is not None
    assert chosen(landmarks="farthest").axes is None
    assert chosen(landmarks="random", extension="nystrom").extension == "nystrom"
    with pytest.raises(InputError, match=r"spectrum\.landmarks='middle'"):
        chosen(landmarks="middle")
