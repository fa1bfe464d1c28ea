"""Train one run, or a sweep that ends in its comparison table.

    python src/train.py quantizer=adabin backbone=resnet20 dataset=cifar10
    python src/train.py -m quantizer=adabin,xnor,birealnet backbone=resnet18
    python src/train.py table=unified_cifar10 scale=demo
    python src/train.py train=false ckpt_path=<file> dataset=cifar10

A finished run is reused, an interrupted one resumes from its last epoch; ``force=true`` runs again.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from bnnbench import resolvers
from bnnbench.records.fingerprint import fingerprint
from bnnbench.records.store import headline_key, read_result
from bnnbench.sweep.cli import ensure_multirun, valid_keys
from bnnbench.sweep.devices import claim_gpu

resolvers.register()


@hydra.main(config_path="../conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> float:
    """One run; returns the headline of its last epoch, nan where it only counted."""
    resolvers.register()  # a launcher's worker unpickles this function without running the module
    folder = Path(cfg.paths.output_dir)
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    result = None if cfg.force or not cfg.train else read_result(folder)
    if result is None or result["fingerprint"] != fingerprint(cfg):
        claim_gpu()
        from bnnbench.run import execute  # torch takes seconds: only once there is work

        score = execute(cfg, folder, quiet=in_sweep)
    else:
        metrics = result["metrics"]["last"]
        score = metrics.get(headline_key(metrics), math.nan)
    if not in_sweep and cfg.train:
        what = "counted" if math.isnan(score) else f"{100 * score:.2f} % in the last epoch"
        print(f"{what}; {folder / 'result.json'}")
    return score


if __name__ == "__main__":
    sys.argv = ensure_multirun(sys.argv)
    with valid_keys():
        main()
