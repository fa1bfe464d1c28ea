"""A stand-in for train.py: the same config keys and files, without torch, so that sweeps are fast.

The environment steers it: APP_SLOW names quantizers that take minutes, APP_UNTIL a file that all
wait for, APP_KILL those whose process dies, APP_ONCE those whose process dies at the first attempt,
APP_DEATH what they die of, APP_EXIT one that exits, APP_QUEUED one that its cluster warns and puts
into the queue again; APP_STEPS the seconds of a training step that the process for them tells, or
how it fails.
"""

import json
import math
import os
import pickle
import signal
import sys
import time
import types
from hashlib import sha256
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from bnnbench.records.fingerprint import fingerprint, fingerprinted, run_name
from bnnbench.records.store import Cell, cell_state, mark_logged, write_json
from bnnbench.resolvers import headline
from bnnbench.runs import signals
from bnnbench.sweep import timing
from bnnbench.sweep.cli import ensure_multirun, left_to_cells, valid_keys

VERSIONS = {"threads": "OMP_NUM_THREADS", "jobs": "BNNBENCH_JOBS"}  # told in a result


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
    while (file := os.environ.get("APP_UNTIL")) and not Path(file).exists():
        time.sleep(0.1)
    if cfg.quantizer.name in os.environ.get("APP_KILL", "").split(","):
        die()
    if cfg.quantizer.name in os.environ.get("APP_ONCE", "").split(","):
        once = folder / "once"
        if not once.exists():
            once.touch()
            die()
    if cfg.quantizer.name == os.environ.get("APP_EXIT"):
        sys.exit(-1)
    if cfg.quantizer.name == os.environ.get("APP_QUEUED"):
        signal.raise_signal(signal.SIGUSR2)
    if cfg.quantizer.name == "boom":
        raise Unpicklable("the loss is not finite", object())
    write_json(folder / "result.json", result(cfg))
    return 0.5


def die() -> None:
    """What memory that runs out, or a crash, does to a process."""
    cause = os.environ.get("APP_DEATH", "SIGKILL")
    if cause.isdecimal():
        os._exit(int(cause))
    os.kill(os.getpid(), signal.Signals[cause])


def result(cfg: DictConfig) -> dict[str, Any]:
    """What a run of two epochs would leave; `versions` tell what the test asks of its process."""
    groups = ("quantizer", "loss", "backbone", "dataset", "recipe")
    return {
        "schema": 2,
        "name": run_name(cfg),
        "fingerprint": fingerprint(cfg),
        "config": fingerprinted(cfg),
        "choices": {group: cfg[group].name for group in groups},
        "seed": cfg.seed,
        "overrides": list(HydraConfig.get().overrides.task),
        "command": "python app.py",
        "tags": [],
        "source_hash": "a" * 64,
        "source_proofs": [],
        "data_stamp": stamp_of(cfg.dataset),
        "structure": {},
        "bits": {"w": 1, "a": 1},
        "bases": {"w": 1, "a": 1},
        "headline": headline(cfg),
        "metrics": {"last": {headline(cfg): score_of(cfg)}, "best": {}},
        "classes": None,
        "history": {"epoch": [0, 1], "test/acc": [0.25, 0.5]},
        "epochs": 2,
        "planned_epochs": 2,
        "ended": None,
        "world_size": 1,
        "operations": {},
        "versions": {k: str(os.environ.get(v)) for k, v in VERSIONS.items()},
        "git": {"commit": None, "dirty": None},
    }


def score_of(cfg: DictConfig) -> float:
    """On held-out data best at a rate of 0.01; everything else is alike."""
    if cfg.dataset.val_fraction == 0:
        return 0.5
    return 1 - abs(math.log10(cfg.recipe.lr) + 2) / 4


def stamp_of(dataset: Any, cache: Path | None = None) -> str | None:
    """The content of the data folder's one file stands for a data set."""
    file = Path(dataset["data_dir"]) / "data.txt"
    return f"sha256:{sha256(file.read_bytes()).hexdigest()}" if file.exists() else None


def slow(place: str) -> None:
    """Take minutes where the environment says so, and show that it has begun."""
    if place in os.environ.get("APP_SLOW", "").split(","):
        Path(os.environ["APP_LOGS"], place).touch()
        time.sleep(300)


def preflight(cfgs: list[DictConfig], folders: list[Path], here: bool) -> list[int]:
    """Stands in for the real one, which imports torch."""
    slow("preflight")
    if any(cfg.dataset.name == "absent" for cfg in cfgs):
        raise FileNotFoundError("dataset absent: put it into data/")
    return [100 for _ in cfgs]


def steps() -> None:
    """Stands in for the process that times steps: one step an image and epoch, of one kind each."""
    cells = pickle.load(sys.stdin.buffer)
    told = os.environ.get("APP_STEPS", "0.001")
    if told == "dies":
        sys.exit("RuntimeError: no room")
    numbered = list(enumerate(cells))
    kinds = [{"label": f"{cfg.backbone.name} at 32 px", "alike": n} for n, (cfg, *_) in numbered]
    runs = [[(n, cfg.trainer.max_epochs * images)] for n, (cfg, images, _) in numbered]
    head = {"device": "cpu: a processor, 1 thread", "threads": 1, "kinds": kinds}
    print(json.dumps(head | {"runs": runs, "left_out": []}), flush=True)
    for n, _ in numbered:
        if told == "hangs" and n > 0:
            time.sleep(300)
        print(
            json.dumps({"kind": n, "step_s": 0.5 if told == "hangs" else float(told)}), flush=True
        )


def render(
    manifest_path: Path, run_folders: list[Path], out_dir: Path, published: Path, bench: object
) -> object:
    """A table of run states."""
    slow("render")
    manifest = json.loads(manifest_path.read_text())
    cells = [Cell(**cell) for cell in manifest["cells"]]
    lines = [f"| {c.overrides['quantizer']} | {cell_state(run_folders[0], c)} |" for c in cells]
    (out_dir / "table.md").write_text("\n".join(lines))
    rows = [[c.overrides["quantizer"], cell_state(run_folders[0], c)] for c in cells]
    shown = {"title": "states", "header": ["quantizer", "state"], "rows": rows, "notes": []}
    return types.SimpleNamespace(markdown=lambda: "\n".join(lines), **shown)


def replay(cfg: DictConfig, folder: Path, result: dict[str, Any]) -> None:
    """What a logger would be given of a finished run."""
    with (Path(cfg.paths.log_dir) / "replayed.txt").open("a") as log:
        for name in cfg.logger:
            log.write(f"{name} {folder.name} {len(result['history']['epoch'])}\n")
            mark_logged(folder, name)


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
    if "APP_QUEUED" in os.environ:
        signal.signal(signal.SIGUSR2, lambda *_: sys.exit(-1))
    if sys.argv[1:] == ["--steps"]:
        sys.exit(steps())
    timing.COMMAND = [sys.executable, __file__, "--steps"]
    timing.MOST_S = 4.0 if os.environ.get("APP_STEPS") == "hangs" else timing.MOST_S
    stand_in("bnnbench.records.stamps", stamp_of=stamp_of, PACKAGE="bnnbench.data.")
    stand_in("bnnbench.runs.preflight", preflight=preflight)
    stand_in("bnnbench.report.render", render=render)
    stand_in("bnnbench.runs.loggers", replay=replay)
    stand_in("bnnbench.runs.wandb", choose_mode=lambda folder: None)
    stand_in("bnnbench.sweep.summary", log_summary=log_summary)
    sys.argv = ensure_multirun(sys.argv)
    with signals.ending(), valid_keys(), left_to_cells():
        main()
    assert "torch" not in sys.modules, "a sweep imported torch"
