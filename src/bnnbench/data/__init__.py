"""LightningDataModules."""

from bnnbench.data.base import ClassificationData, ImageData
from bnnbench.data.detection import DetectionDataModule, ShapesDataModule, VOCDataModule
from bnnbench.data.folders import FolderDataModule
from bnnbench.data.images import ImageDataModule
from bnnbench.data.sources import DatasetDamaged, DatasetMissing

__all__ = [
    "ClassificationData",
    "DatasetDamaged",
    "DatasetMissing",
    "DetectionDataModule",
    "FolderDataModule",
    "ImageData",
    "ImageDataModule",
    "ShapesDataModule",
    "VOCDataModule",
]
