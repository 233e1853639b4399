"""Problems to train on."""

from spectrain.data.field import FieldDataModule
from spectrain.data.frames import FramesDataModule
from spectrain.data.image import ImageDataModule, coordinate_grid
from spectrain.data.image_io import read_image, shipped_images
from spectrain.data.modular import ModularDataModule
from spectrain.data.signal import SignalDataModule
from spectrain.data.table import TableDataModule

__all__ = [
    "FieldDataModule",
    "FramesDataModule",
    "ImageDataModule",
    "ModularDataModule",
    "SignalDataModule",
    "TableDataModule",
    "coordinate_grid",
    "read_image",
    "shipped_images",
]
