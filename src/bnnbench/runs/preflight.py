"""What would fail in every job of a sweep, found before the first one starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from bnnbench.losses.distillation import MapTerm
from bnnbench.records.checkpoints import check_start, read_state_dict
from bnnbench.runs.build import build_datamodule, build_task
from bnnbench.runs.mistakes import Mistakes
from bnnbench.runs.stages import GROUPS, stages
from bnnbench.runs.teacher import build_teacher

FREE_BYTES = 200e6  # checkpoints and logs of a run


def preflight(cfgs: Iterable[DictConfig]) -> None:
    """Check folders, data sets, checkpoints and networks of ``cfgs``; downloads what is missing.

    Raises:
        OSError: a folder that cannot be written, a full disk, a data set that is nowhere.
        ValueError: a damaged file, an option or a combination that makes no sense; of several runs
            all mistakes, one a line.
    """
    cfgs = list(cfgs)
    mistakes = Mistakes(cfgs)
    seen: dict[str, Exception | None] = {}
    for number, cfg in enumerate(cfgs):
        for check, nodes in (
            (_check_folder, [cfg.paths.runs_dir]),
            (_check_checkpoints, [cfg.init_from, cfg.ckpt_path]),
            (_check_data, [cfg.dataset]),
            (check_stages, [cfg[group] for group in (*GROUPS, "recipe")]),
        ):
            key = f"{check.__name__} {[_plain(node) for node in nodes]}"
            if key not in seen:
                seen[key] = _failure(check, cfg)
            if (error := seen[key]) is not None:
                mistakes.add(number, error)
    mistakes.tell()


def _failure(check: Callable[[DictConfig], None], cfg: DictConfig) -> Exception | None:
    try:
        check(cfg)
    except Exception as error:
        return error
    return None


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _check_folder(cfg: DictConfig) -> None:
    folder = Path(cfg.paths.runs_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written ({error}): set paths.log_dir=<folder>"
        ) from error
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        raise OSError(f"{folder} has {free / 1e6:.0f} MB left: set paths.log_dir=<folder>")


def _check_checkpoints(cfg: DictConfig) -> None:
    for path in (cfg.init_from, cfg.ckpt_path):
        if path is not None:
            read_state_dict(path)


def _check_data(cfg: DictConfig) -> None:
    if cfg.trainer.max_epochs == 0:  # it only counts
        return
    data = build_datamodule(cfg)
    data.prepare_data()
    data.setup("fit")


def check_stages(cfg: DictConfig) -> None:
    """Build and run every stage's network and teacher, and match it with the one before.

    Raises:
        ValueError: what a later stage cannot do, said before the first is trained.
    """
    earlier: dict[str, DictConfig] = {}
    before: nn.Module | None = None
    for stage in stages(cfg):
        teacher = build_teacher(stage.cfg, earlier, untrained=True)
        task = build_task(stage.cfg, teacher=teacher)
        net = task.net.eval()
        dataset = stage.cfg.dataset
        images = torch.zeros(2, dataset.in_channels, dataset.image_size, dataset.image_size)
        with torch.no_grad():
            for each in (net, *([teacher.net.eval()] if teacher else [])):
                each(images)
        for term in task.regularizers:
            if isinstance(term, MapTerm):
                term.check_maps()
        if stage.continues and before is not None:
            check_start(net, before.state_dict(), f"the stage before {stage.name} is")
        before = net
        earlier[str(stage.name)] = stage.cfg
