"""Train one run, or a sweep that ends in its comparison table.

    python src/train.py quantizer=adabin backbone=resnet20 dataset=cifar10
    python src/train.py -m quantizer=adabin,xnor,birealnet backbone=resnet18
    python src/train.py table=unified_cifar10 scale=demo
    python src/train.py train=false ckpt_path=<file>

A finished run is reused, an interrupted one resumes from its last epoch; ``force=true`` runs again.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from bnnbench import resolvers
from bnnbench.records.provenance import task_overrides
from bnnbench.records.store import read_result
from bnnbench.runs.keys import check_added, check_added_to_hydra
from bnnbench.runs.reuse import Run, check_start, needs_replay, reused, settle
from bnnbench.sweep.cli import ensure_multirun, valid_keys
from bnnbench.sweep.devices import claim_gpu

resolvers.register()


@hydra.main(config_path="../conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> float:
    """One run; returns the headline of its last epoch, nan where it only counted."""
    resolvers.register()  # a launcher's worker unpickles this function without running the module
    hydra_cfg = HydraConfig.get()
    in_sweep = hydra_cfg.mode == RunMode.MULTIRUN
    if not in_sweep:  # a sweep has checked its cells
        check_added(cfg, task_overrides())
        check_added_to_hydra(hydra_cfg, hydra_cfg.overrides.hydra)  # pyright: ignore
    first = run = Run(cfg, Path(cfg.paths.output_dir))
    if cfg.train and not in_sweep:
        check_start(cfg)
        run = settle(first)
    if run.folder != first.folder:
        print(f"the data are not those that {first.name} was trained on: this is {run.name}")
    result = None if cfg.force or not cfg.train else read_result(run.folder)
    if result is not None and result["fingerprint"] == run.fingerprint:
        return _reuse(run, result)
    claim_gpu()
    from bnnbench.runs.run import execute  # torch takes seconds: only once there is work

    score = execute(cfg, run.folder, quiet=in_sweep, typed=task_overrides())
    if not in_sweep and cfg.train:
        what = "counted" if math.isnan(score) else f"{100 * score:.2f} % in the last epoch"
        print(f"{what}; {run.folder / 'result.json'}")
    return score


def _reuse(run: Run, result: dict[str, Any]) -> float:
    """Show a finished run's result, also to a logger that has not seen it."""
    print(f"{reused(result)}; {run.folder / 'result.json'}; force=true runs it again")
    if needs_replay(run):
        from bnnbench.runs.loggers import replay  # with torch

        replay(run.cfg, run.folder, result)
    score = result["metrics"]["last"].get(result["headline"])
    return math.nan if score is None else score


if __name__ == "__main__":
    sys.argv = ensure_multirun(sys.argv)
    with valid_keys():
        main()
