"""LightningDataModules."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnnbench.data.arrays import ArraysDataModule
    from bnnbench.data.base import ClassificationData, ImageData
    from bnnbench.data.detection import DetectionDataModule, ShapesDataModule, VOCDataModule
    from bnnbench.data.folders import FolderDataModule
    from bnnbench.data.image_folders import ImageFolderDataModule
    from bnnbench.data.images import ImageDataModule
    from bnnbench.data.known import DatasetDamaged, DatasetMissing

# Imported on first use: the stamps of data are looked up without torch.
_PUBLIC = {
    "ArraysDataModule": "arrays",
    "ClassificationData": "base",
    "DatasetDamaged": "known",
    "DatasetMissing": "known",
    "DetectionDataModule": "detection",
    "FolderDataModule": "folders",
    "ImageData": "base",
    "ImageDataModule": "images",
    "ImageFolderDataModule": "image_folders",
    "ShapesDataModule": "detection",
    "VOCDataModule": "detection",
}

__all__ = [
    "ArraysDataModule",
    "ClassificationData",
    "DatasetDamaged",
    "DatasetMissing",
    "DetectionDataModule",
    "FolderDataModule",
    "ImageData",
    "ImageDataModule",
    "ImageFolderDataModule",
    "ShapesDataModule",
    "VOCDataModule",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'bnnbench.data' has no attribute {name!r}")
    return getattr(import_module(f"bnnbench.data.{_PUBLIC[name]}"), name)
