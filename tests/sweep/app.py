"""A stand-in for train.py: the same config keys and files, without torch, so that sweeps are fast.

The environment steers it: APP_SLOW names quantizers that take minutes, APP_KILL one whose process
dies.
"""

import json
import os
import signal
import sys
import time
import types
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from bnnbench.records.fingerprint import fingerprint
from bnnbench.records.store import Cell, cell_state, write_json
from bnnbench.sweep.cli import ensure_multirun, valid_keys


class Unpicklable(Exception):
    """Cannot be rebuilt from its message: such an exception breaks a process pool."""

    def __init__(self, message: str, detail: object) -> None:
        super().__init__(message)


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> float:
    """Trains nothing, for as long as it is told."""
    folder = Path(cfg.paths.output_dir)
    write_json(folder / "progress.json", {"epoch": 0, "max_epochs": 2, "metrics": {}})
    with (Path(cfg.paths.log_dir) / "executed.txt").open("a") as log:
        log.write(f"{cfg.quantizer.name} {cfg.seed} {os.environ.get('BNNBENCH_SWEEP')}\n")
    print("chatter of a run")
    if cfg.quantizer.name in os.environ.get("APP_SLOW", "").split(","):
        time.sleep(300)
    if cfg.quantizer.name == os.environ.get("APP_KILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.quantizer.name == "boom":
        raise Unpicklable("the loss is not finite", object())
    environment = {"threads": os.environ.get("OMP_NUM_THREADS"), "pid": os.getpid()}
    overrides = list(HydraConfig.get().overrides.task)
    result = {"schema": 1, "fingerprint": fingerprint(cfg), "overrides": overrides} | environment
    write_json(folder / "result.json", result)
    return 0.5


def preflight(cfgs: list[DictConfig]) -> None:
    """Stands in for the real one, which imports torch."""
    if any(cfg.dataset.name == "absent" for cfg in cfgs):
        raise FileNotFoundError("dataset absent: put it into data/")


def render(manifest_path: Path, run_folders: list[Path], out_dir: Path, published: Path) -> object:
    """A table of run states."""
    manifest = json.loads(manifest_path.read_text())
    cells = [Cell(**cell) for cell in manifest["cells"]]
    lines = [f"| {c.overrides['quantizer']} | {cell_state(run_folders[0], c)} |" for c in cells]
    (out_dir / "table.md").write_text("\n".join(lines))
    return types.SimpleNamespace(markdown=lambda: "\n".join(lines))


def log_summary(cfg: DictConfig, name: str, table: types.SimpleNamespace) -> None:
    """What a wandb run would be given."""
    file = Path(cfg.paths.log_dir) / "summary.json"
    write_json(file, {"name": name, "table": table.markdown()})


def stand_in(name: str, **attributes: object) -> None:
    """Replace a module of the package that a sweep calls and these tests are not about."""
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    sys.modules[name] = module


if __name__ == "__main__":
    stand_in("bnnbench.preflight", preflight=preflight)
    stand_in("bnnbench.report.render", render=render)
    stand_in("bnnbench.callbacks.wandb_summary", log_summary=log_summary)
    sys.argv = ensure_multirun(sys.argv)
    with valid_keys():
        main()
    assert "torch" not in sys.modules, "a sweep imported torch"
