"""Which keys of a config tell runs apart, and at which values they do not.

A key counts unless it stands here; docs/results.md decides for every one.
"""

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

# Keys that change no number, or that another key already holds resolved.
OUTSIDE = (
    "hydra",
    "paths",
    "logger",
    "tags",
    "force",
    "trust",
    "table",
    "scale",
    "hparams_search",
    "dataset.data_dir",
    "dataset.workers",
    "dataset.task",  # follows from what the data and the network are
    "backbone.task",
    # trainer.max_epochs and dataset.batch_size hold this dataset's entry: a recipe that gains
    # another dataset must not make finished runs look new.
    "recipe.epochs",
    "recipe.batch_size",
    "recipe.label_smoothing",  # loss.label_smoothing holds it
    "recipe.resize",  # dataset.resize holds it
    "trainer.devices",  # world_size holds their product
    "trainer.num_nodes",
    "trainer.enable_*",
    "trainer.log_every_n_steps",
    "trainer.default_root_dir",
    "trainer.profiler",
    "trainer.detect_anomaly",
    "trainer.logger",
)
# Keys that change no number in a group of one class: a set that is named after its folder may move.
OUTSIDE_OF = {"dataset.folder": "ImageFolderDataModule"}
OUTSIDE_OF |= dict.fromkeys(
    ("dataset.file", "dataset.images", "dataset.labels"), "ArraysDataModule"
)
OUTSIDE_OF |= dict.fromkeys(("dataset.test_images", "dataset.test_labels"), "ArraysDataModule")
# Callbacks that only watch a run, by class.
WATCHING = (
    "RunBar",
    "RichProgressBar",
    "TQDMProgressBar",
    "RichModelSummary",
    "ModelSummary",
    "LearningRateMonitor",
    "DeviceStatsMonitor",
    "ThroughputMonitor",
    "ModelCheckpoint",
    "OnExceptionCheckpoint",
    "History",
    "WeightStatistics",
    "BinaryDiagnostics",
    "DetectionPictures",
    "FiniteLoss",
)
# Value at which a key means what runs did before it was known: left out of the hash there, so that
# a key added to a config later renames no run. Patterns as in OUTSIDE.
NEUTRAL: dict[str, Any] = {
    "task": {"_target_": None},
    "train": True,
    "ckpt_path": None,
    "init_from": None,
    "checkpoint_map": None,
    "teacher": {"name": "none"},
    "world_size": 1,
    "compile": "auto",
    "channels_last": True,
    "trainer.accelerator": "auto",
    "trainer.strategy": "auto",
    "trainer.limit_*_batches": 1.0,
    "trainer.overfit_batches": 0.0,
    "trainer.fast_dev_run": False,
    "trainer.max_time": None,
    "trainer.max_steps": -1,
    "trainer.min_epochs": None,
    "trainer.accumulate_grad_batches": 1,
    "callbacks": {},
    "dataset.bad_images": "error",
    "backbone.stem": "auto",
    "backbone.width": 1,
    "dataset.mixup": 0,
    "dataset.cutmix": 0,
    "dataset.erasing": 0,
    "dataset.class_weights": None,
    "dataset.resize": [],
    "backbone.stem_nonlinearity": "same",
    "loss.terms": {},
    "recipe.nesterov": False,
    "recipe.milestones": [],
    "recipe.gamma": 0.1,
    "recipe.pct_start": 0.3,
    "recipe.div_factor": 25,
    "recipe.final_div_factor": 10000,
    "recipe.estimator_reach": 1,
    "recipe.reference_batch": None,
    "recipe.start": None,
    "recipe.twin": {},
    "recipe.groups": {},
    "recipe.init_std": None,
    "recipe.stages": [],
}
# The same for keys whose value of before follows from the class of the data.
NEUTRAL_OF: dict[str, dict[str, Any]] = {
    "FolderDataModule": {"dataset.augmentation": "inception", "dataset.flip": True},
    "ImageDataModule": {"dataset.augmentation": "crop_flip"},
}


def is_neutral(key: str, value: Any, target: str) -> bool:
    """Whether a dotted key means what runs did before it was known; ``target``: of its mapping."""
    neutrals = _neutrals(key, class_of(target))
    return any(value == known and type(value) is type(known) for known in neutrals)


@lru_cache(maxsize=4096)
def is_outside(key: str) -> bool:
    """Whether a dotted key, or the group it stands in, changes no number."""
    parts = key.split(".")
    heads = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return any(fnmatchcase(head, pattern) for head in heads for pattern in OUTSIDE)


def is_outside_of(key: str, kind: str) -> bool:
    """Whether a key changes no number in a group of the class ``kind``."""
    return is_outside(key) or OUTSIDE_OF.get(key) == kind


@lru_cache(maxsize=4096)
def _neutrals(key: str, kind: str) -> tuple[Any, ...]:
    own = NEUTRAL_OF.get(kind, {})
    known = tuple(neutral for pattern, neutral in NEUTRAL.items() if fnmatchcase(key, pattern))
    return (*known, own[key]) if key in own else known


def class_of(target: str) -> str:
    """The class that a ``_target_`` names."""
    return target.rpartition(".")[2]
