"""LightningDataModules."""

from bnnbench.data.base import ClassificationData
from bnnbench.data.folders import FolderDataModule
from bnnbench.data.images import ImageDataModule
from bnnbench.data.sources import DatasetDamaged, DatasetMissing

__all__ = [
    "ClassificationData",
    "DatasetDamaged",
    "DatasetMissing",
    "FolderDataModule",
    "ImageDataModule",
]
