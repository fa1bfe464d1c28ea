"""What would fail in every job of a sweep, found before the first one starts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from bnnbench.backbones.stems import told
from bnnbench.checks.mistakes import Mistakes
from bnnbench.checks.options import check_checkpoints, check_monitors, check_options
from bnnbench.checks.places import check_devices, check_room, check_temporary, check_writable
from bnnbench.checks.values import check_config
from bnnbench.config import to_dict
from bnnbench.data.base import ClassificationData
from bnnbench.data.resizing import sides
from bnnbench.losses.class_weights import balanced_weights
from bnnbench.losses.distillation import MapTerm
from bnnbench.records.checkpoints import check_start, read_state_dict
from bnnbench.runs.build import build_datamodule, build_task, build_trainer
from bnnbench.runs.continued import origin_of
from bnnbench.runs.counted import counted
from bnnbench.runs.hushed import hush
from bnnbench.runs.loggers import build_loggers
from bnnbench.runs.run_log import About
from bnnbench.runs.stages import GROUPS, stages
from bnnbench.runs.teacher import build_teacher
from bnnbench.runs.twin import check_twin, starts_from_twin, twin_of


def preflight(
    cfgs: Iterable[DictConfig], folders: Iterable[Path] = (), here: bool = True
) -> list[int | None]:
    """Check folders, data sets, checkpoints, networks and trainers of ``cfgs``, each kind once.

    Downloads what is missing.

    Args:
        cfgs: the composed configs of the runs.
        folders: where they will run.
        here: whether on this machine, so that its devices are theirs.

    Returns:
        How many images each of them trains on; None of one that only counts.

    Raises:
        OSError: a folder that cannot be written, a full disk, a data set that is nowhere.
        ValueError: a damaged file, an option or a combination that makes no sense; of several runs
            all mistakes, one a line.
    """
    hush()
    check_temporary()
    for folder in folders:
        if folder.exists():
            check_writable(folder)
    trainer = partial(_check_trainer, here=here)
    cfgs = list(cfgs)
    mistakes = Mistakes(cfgs)
    seen: dict[str, tuple[Exception | None, Any]] = {}
    images: list[int | None] = []
    for number, cfg in enumerate(counted(cfgs, "checking", "settings")):
        groups = [cfg[group] for group in (*GROUPS, "recipe")]
        options = [_plain(cfg.get(key), resolve=False) for key in ("callbacks", "logger")]
        for check, nodes in (
            (_check_folder, [cfg.paths.runs_dir]),
            (_check_checkpoints, [cfg.init_from, cfg.ckpt_path]),
            (origin_of, [] if cfg.ckpt_path is None else [_plain(cfg, resolve=False)]),
            (check_settings, [cfg.trainer, *options, *groups]),
            (trainer, [cfg.trainer, cfg.compile, *options]),
            (_check_data, [cfg.dataset, cfg.trainer.max_epochs == 0]),
            (check_stages, groups),
        ):
            key = f"{check} {[_plain(node) for node in nodes]}"
            if key not in seen:
                seen[key] = _outcome(check, cfg)
            error, found = seen[key]
            if error is not None:
                mistakes.add(number, error)
            if check is _check_data:
                images.append(found)
    mistakes.tell()
    for cfg in cfgs:
        if (line := told(to_dict(cfg.backbone))) is not None:
            _say_once(line)
    return images


@cache
def _say_once(line: str) -> None:
    """Print it; the rounds of a search are checked one after the other."""
    print(line, file=sys.stderr, flush=True)


def check_settings(cfg: DictConfig) -> None:
    """Refuse options and callbacks that a run, or a stage of it, cannot have. Raises ValueError."""
    check_options(cfg)
    _check_map(cfg)
    check_twin(cfg)
    for stage in stages(cfg):
        check_monitors(stage.cfg)
        _check_resizing(stage.cfg)


def _check_map(cfg: DictConfig) -> None:
    named, teacher = cfg.get("checkpoint_map"), cfg.teacher.get("checkpoint")
    if named is not None and cfg.init_from is None and cfg.ckpt_path is None and teacher is None:
        raise ValueError(
            f"checkpoint_map={named}: there is no checkpoint to read with it; set "
            "init_from=<file>, teacher.checkpoint=<file>, or train=false and ckpt_path=<file>"
        )


def _check_resizing(cfg: DictConfig) -> None:
    """Refuse smaller images where their sizes are not known. Raises ValueError."""
    typed, own = cfg.recipe.get("resize"), cfg.dataset.get("resize")
    if typed and own is None:
        raise ValueError(
            f"recipe.resize={to_dict(cfg.recipe)['resize']}: dataset={cfg.dataset.name} takes no "
            "smaller images, sets of classified ones do; set recipe.resize=[]"
        )
    steps = {
        "trainer.max_steps": cfg.trainer.get("max_steps", -1),
        "recipe.steps": cfg.recipe.get("steps"),
    }
    limits = [f"{key}={value}" for key, value in steps.items() if value not in (None, -1)]
    if own and (limits or cfg.trainer.max_epochs in (None, -1)):
        raise ValueError(
            f"dataset.resize={to_dict(cfg.dataset)['resize']} follows the epochs of a run and "
            f"{' and '.join(limits) or 'trainer.max_epochs=-1'} limits it otherwise: set "
            "trainer.max_epochs alone"
        )


def _outcome(check: Callable[[DictConfig], Any], cfg: DictConfig) -> tuple[Exception | None, Any]:
    """What a check refuses, or else finds."""
    try:
        return None, check(cfg)
    except Exception as error:
        return error, None


def _plain(node: Any, resolve: bool = True) -> Any:
    return OmegaConf.to_container(node, resolve=resolve) if OmegaConf.is_config(node) else node


def _check_folder(cfg: DictConfig) -> None:
    folder = Path(cfg.paths.runs_dir)
    check_writable(folder)
    check_room(folder)


def _check_trainer(cfg: DictConfig, here: bool) -> None:
    """Build the trainer with its callbacks and its logger, in a folder that is thrown away.

    Loggers start nothing before they are told something. ``auto`` and ``fastest`` are not asked for
    their precision: that would take a piece of the GPU in this process.
    """
    own = deepcopy(cfg)
    if own.trainer.precision in ("auto", "fastest"):
        own.trainer.precision = "32-true"
    if here:
        check_devices(own)
    else:
        with open_dict(own):
            own.trainer.update(accelerator="cpu", devices=1, strategy="auto", num_nodes=1)
    with TemporaryDirectory() as folder:
        own.paths.output_dir = folder
        loggers = build_loggers(own, About("preflight"))
        build_trainer(own, Path(folder), True, "preflight", loggers.values())


def _check_checkpoints(cfg: DictConfig) -> None:
    for path in (cfg.init_from, cfg.ckpt_path):
        if path is not None:
            read_state_dict(path)


def _check_data(cfg: DictConfig) -> int | None:
    """The number of images that are trained on."""
    if cfg.trainer.max_epochs == 0:  # it only counts
        return None
    data = build_datamodule(cfg)
    data.prepare_data()
    data.setup("fit")
    if isinstance(data, ClassificationData) and data.spec.class_weights == "balanced":
        balanced_weights(data.class_counts())
    return data.train_images


def check_stages(cfg: DictConfig) -> None:
    """Build and run every stage's network and teacher, and match it with the one before.

    Raises:
        ValueError: what a later stage cannot do, said before the first is trained.
    """
    earlier: dict[str, DictConfig] = {}
    twin = _checked_twin(twin_of(cfg).cfg) if starts_from_twin(cfg) else None
    before: nn.Module | None = None
    for stage in stages(cfg):
        check_config(stage.cfg)  # which has values of its own
        teacher = build_teacher(stage.cfg, earlier, untrained=True)
        task = build_task(stage.cfg, teacher=teacher)
        net = task.net.eval()
        dataset = stage.cfg.dataset
        nets = (net, *([teacher.net.eval()] if teacher else []))
        for side in sides(dataset.get("resize") or (), dataset.image_size):
            _check_takes(nets, dataset, side)
        for term in task.regularizers:
            if isinstance(term, MapTerm):
                term.check_maps()
        if twin is not None and before is None:
            check_start(net, twin.state_dict(), "recipe.start=twin is")
        if stage.continues and before is not None:
            check_start(net, before.state_dict(), f"the stage before {stage.name} is")
        before = net
        earlier[str(stage.name)] = stage.cfg


def _checked_twin(cfg: DictConfig) -> nn.Module:
    """The network of a twin whose settings are such as a run may have."""
    try:
        check_config(cfg)
        check_settings(cfg)
        check_checkpoints(cfg, "which the run starts from")
    except ValueError as error:
        raise ValueError(f"the full-precision twin, by recipe.twin: {error}") from error
    return build_task(cfg).net


def _check_takes(nets: Iterable[nn.Module], dataset: DictConfig, side: int) -> None:
    """Run networks on images of a side. ValueError where one takes no smaller ones."""
    with torch.no_grad():
        for net in nets:
            try:
                net(torch.zeros(2, dataset.in_channels, side, side))
            except RuntimeError as error:
                if side == dataset.image_size:
                    raise
                raise ValueError(
                    f"dataset.resize={to_dict(dataset)['resize']} makes images of {side} pixels, "
                    f"and the network takes {dataset.image_size} alone: set recipe.resize=[], or "
                    "choose a backbone with a global pooling, such as resnet20"
                ) from error
