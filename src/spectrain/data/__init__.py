"""Problems to train on."""

from spectrain.data.field import FieldDataModule
from spectrain.data.image import ImageDataModule, coordinate_grid
from spectrain.data.image_io import read_image, shipped_images

__all__ = ["FieldDataModule", "ImageDataModule", "coordinate_grid", "read_image", "shipped_images"]
