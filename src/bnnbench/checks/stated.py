"""What the keys of a config may hold, by dotted key or pattern: `checks` compares them with it."""

from __future__ import annotations

import re

from bnnbench.checks.kinds import (
    FLAG,
    LIST,
    MAPPING,
    NAMES,
    NULL,
    SHARE,
    TEXT,
    Kind,
    choice,
    listed,
    mapped,
    number,
    whole,
)
from bnnbench.data import resizing

COUNT, SIZE = whole(0), whole(1)
RATE, FACTOR = number(above=0), number(least=0)
PROBABILITY = Kind(
    "a number from 0 to 1", lambda value: type(value) in (int, float) and 0 <= value <= 1
)
LENGTH = Kind(
    "a whole number from 0 on, or null or -1 where recipe.steps or trainer.max_steps is the limit",
    lambda value: value is None or (type(value) is int and value >= -1),
)
PART = Kind(
    "a whole number of batches from 1 on, or a part of them above 0.0 and up to 1.0",
    lambda value: whole(1).holds(value) or (isinstance(value, float) and 0 < value <= 1),
)
PRECISIONS = (
    "auto",
    "fastest",
    "32-true",
    "16-mixed",
    "bf16-mixed",
    "16-true",
    "bf16-true",
    "64-true",
)
PRECISIONS += ("transformer-engine", "transformer-engine-float16")
DEVICES = Kind(
    "auto, -1 for all, a number of devices from 1 on, or a list of them such as [0, 1]",
    lambda value: (
        value in ("auto", -1)
        or whole(1).holds(value)
        or (isinstance(value, list) and bool(value) and all(map(COUNT.holds, value)))
        or (isinstance(value, str) and value.replace(",", "").replace(" ", "").isdecimal())
    ),
)
PADDING = Kind("-1, 0 or 1", lambda value: number().holds(value) and value in (-1, 0, 1))
TIME = Kind(
    "a time as DD:HH:MM:SS",
    lambda value: isinstance(value, str) and re.fullmatch(r"\d+:\d\d:\d\d:\d\d", value) is not None,
)
RESIZE = Kind(resizing.ADVICE, resizing.is_schedule)
SMOOTHING = number(least=0, below=1)
CLASSES = Kind(
    "a list of names or numbers; what would be read as something else stands in quotes, as in "
    """'dataset.classes=["true","R&B",cat]'""",
    lambda value: (
        isinstance(value, list) and all(type(each) in (str, int, float) for each in value)
    ),
)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isidentifier()


# The first that fits; a star stands for part of one word of a key.
KINDS: dict[str, Kind] = {
    "seed": whole(0, 2**32 - 1),
    "task": MAPPING,
    "train": FLAG,
    "force": FLAG,
    "channels_last": FLAG,
    "compile": choice("auto", True, False),
    "tags": LIST,
    "trust": listed(Kind("the name of a package, such as mypkg", _is_name)),
    "ckpt_path": TEXT | NULL,
    "init_from": TEXT | NULL,
    "checkpoint_map": TEXT | NULL,
    "*.name": TEXT,
    "task._target_": TEXT | NULL,
    "*._target_": TEXT,
    "backbone.stem": choice("auto", "small", "half", "imagenet"),
    "recipe.optimizer": TEXT,
    "recipe.schedule": TEXT,
    "recipe.lr": RATE,
    "recipe.*_lr": RATE,
    "recipe.weight_decay": FACTOR,
    "recipe.momentum": FACTOR,
    "recipe.nesterov": FLAG,
    "recipe.warmup": FACTOR,
    "recipe.milestones": listed(RATE),
    "recipe.gamma": FACTOR,
    "recipe.pct_start": SHARE,
    "recipe.*div_factor": FACTOR,
    "recipe.estimator_reach": RATE,
    "recipe.reference_batch": SIZE | NULL,
    "recipe.start": choice("twin", None),
    "recipe.twin": MAPPING,
    "recipe.label_smoothing": SMOOTHING,
    "recipe.resize": RESIZE,
    "recipe.groups": mapped(MAPPING),
    "recipe.groups.*.*": FACTOR,
    "recipe.init_std": RATE | NULL,
    "recipe.stages": LIST,
    "recipe.first": SHARE,
    "recipe.steps": SIZE | NULL,
    "recipe.gradient_clip_val": FACTOR | NULL,
    "recipe.*_epochs": SIZE,
    "recipe.epochs": MAPPING,
    "recipe.epochs.*": whole(-1),
    "recipe.batch_size": MAPPING,
    "recipe.batch_size.*": whole(2),
    "recipe.effective_size": MAPPING,
    "recipe.effective_size.*": RATE,
    "loss.label_smoothing": SMOOTHING,
    "*.padding_value": PADDING,
    "quantizer.weight": MAPPING,
    "quantizer.activation": MAPPING,
    "dataset.num_classes": SIZE,
    "dataset.in_channels": SIZE,
    "dataset.image_size": SIZE,
    "dataset.folder": TEXT | whole(),
    "dataset.test_fraction": SHARE | NULL,
    "dataset.file": TEXT | NULL,
    "dataset.*images": TEXT | NULL,
    "dataset.*labels": TEXT | NULL,
    "dataset.torchvision": TEXT | NULL,
    "dataset.mean": listed(number()) | choice("auto"),
    "dataset.std": listed(RATE) | choice("auto"),
    "dataset.augmentation": TEXT,
    "dataset.pad": COUNT,
    "dataset.flip": FLAG,
    "dataset.mixup": FACTOR,
    "dataset.cutmix": FACTOR,
    "dataset.erasing": PROBABILITY,
    "dataset.resize": RESIZE,
    "dataset.train_difficult": FLAG,
    "dataset.val_fraction": number(least=0, below=1),
    "dataset.class_weights": choice("balanced", None) | listed(RATE),
    "dataset.batch_size": whole(2),
    "dataset.seed": COUNT,
    "dataset.workers": COUNT | choice("auto"),
    "dataset.generate": MAPPING,
    "dataset.generate.seed": COUNT,
    "dataset.generate.*": SIZE,
    "dataset.train": NAMES,
    "dataset.test": NAMES,
    "dataset.classes": CLASSES,
    "trainer.max_epochs": LENGTH,
    "trainer.min_epochs": COUNT | NULL,
    "trainer.max_steps": whole(-1),
    "trainer.min_steps": COUNT | NULL,
    "trainer.max_time": TIME | MAPPING | NULL,
    "trainer.limit_*_batches": PART | NULL,
    "trainer.overfit_batches": choice(0, 0.0) | PART,
    "trainer.fast_dev_run": FLAG | COUNT,
    "trainer.val_check_interval": RATE | TIME | MAPPING | NULL,
    "trainer.check_val_every_n_epoch": SIZE | NULL,
    "trainer.num_sanity_val_steps": whole(-1),
    "trainer.log_every_n_steps": COUNT,
    "trainer.accumulate_grad_batches": SIZE,
    "trainer.gradient_clip_val": FACTOR | NULL,
    "trainer.gradient_clip_algorithm": choice("norm", "value", None),
    "trainer.precision": choice(*PRECISIONS, "64", "32", "16", "bf16", 64, 32, 16, None),
    "trainer.devices": DEVICES,
    "trainer.num_nodes": SIZE,
    "trainer.accelerator": choice("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.strategy": TEXT,
    "trainer.enable_*": FLAG | NULL,
    "trainer.deterministic": FLAG | choice("warn", None),
    "trainer.benchmark": FLAG | NULL,
    "trainer.inference_mode": FLAG,
    "trainer.use_distributed_sampler": FLAG,
    "trainer.detect_anomaly": FLAG,
    "trainer.barebones": FLAG,
    "trainer.sync_batchnorm": FLAG,
    "trainer.reload_dataloaders_every_n_epochs": COUNT,
    "trainer.profiler": TEXT | NULL,
    "callbacks.*": MAPPING | NULL,
    "callbacks.*._target_": TEXT,
    "callbacks.guard.every_n_steps": SIZE,
    "callbacks.diagnostics.images": whole(2),
    "callbacks.best.mode": choice("max", "min"),
    "logger.*": MAPPING | NULL,
    "logger.*._target_": TEXT,
    "logger.*.folder": TEXT,
    "logger.wandb.group": TEXT | NULL,
    "logger.wandb.project": TEXT,
    "logger.mlflow.experiment": TEXT,
    "logger.mlflow.tracking_uri": TEXT,
    "logger.mlflow.artifacts": TEXT | NULL,
    "teacher.pretrained": FLAG,
    "teacher.*": TEXT | NULL,
    "allow_*": FLAG,  # of report.py, as what follows
    "site": FLAG,
    "promote": TEXT | NAMES | NULL,
    "title": TEXT | NULL,
    "figures": NAMES | NULL,
    "figure": TEXT | NAMES | NULL,
    "sweep": TEXT | NULL,
    "wandb": TEXT | NULL,
    "format": TEXT | NAMES,
}
