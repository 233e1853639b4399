"""Pictures of another size cover the same area as the trained one."""

import pytest
import torch

from spectrain.data import coordinate_grid


def test_the_trained_size_itself_has_its_corners_at_one() -> None:
    assert torch.equal(coordinate_grid(5, 7, (5, 7)), coordinate_grid(5, 7))


@pytest.mark.parametrize("size", [1, 3, 12, 30])
def test_a_linear_picture_resized_by_area_is_the_same_function(size: int) -> None:
    """Area-aligned resizing of a ramp keeps it a ramp; the coordinates must say which one."""
    trained = 6
    edges = torch.linspace(0, trained, size + 1)  # of the new pixels; trained pixel j spans [j, j + 1]
    centres = (edges[:-1] + edges[1:]) / 2 - 0.5
    expected = 2 * centres / (trained - 1) - 1
    torch.testing.assert_close(coordinate_grid(size, trained, (trained, trained))[::trained, 0], expected)


def test_a_line_of_pixels_stays_in_the_middle() -> None:
    assert coordinate_grid(4, 3, (1, 3))[:, 0].abs().max() == 0
