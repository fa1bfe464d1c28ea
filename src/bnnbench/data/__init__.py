"""LightningDataModules."""

from bnnbench.data.images import ImageDataModule
from bnnbench.data.sources import DatasetDamaged, DatasetMissing

__all__ = ["DatasetDamaged", "DatasetMissing", "ImageDataModule"]
