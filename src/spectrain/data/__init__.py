"""Problems to train on."""

from spectrain.data.image import ImageDataModule, coordinate_grid
from spectrain.data.image_io import read_image, shipped_images

__all__ = ["ImageDataModule", "coordinate_grid", "read_image", "shipped_images"]
