"""One rank of several that train some configs in turn; ``test_ranks.py`` starts and compares them.

``python rank.py <folder> <cases.json>``: the environment says which rank this is, as under srun or
torchrun, and what it ends with stands in ``<folder>/<case>_<ranks>_<rank>.pt``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch
from torch import Tensor

from bnnbench import resolvers
from bnnbench.losses.regularizer import Regularizer
from bnnbench.runs.build import build_datamodule, build_task, build_trainer
from bnnbench.runs.hushed import hush
from bnnbench.runs.teacher import build_teacher

ROOT = Path(__file__).resolve().parents[2]
BARE = ["callbacks.progress_bar=null", "callbacks.last=null", "callbacks.best=null", "logger=none"]
BARE += ["callbacks.statistics=null", "trainer.accelerator=cpu", "compile=false"]


class Seen(L.Callback):
    """Keeps what each training batch holds."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batches.append([part.clone() for part in batch if isinstance(part, Tensor)])


def main(folder: Path, cases: dict[str, list[str]]) -> None:
    """Train each case and write down its state."""
    hush()
    resolvers.register()
    ranks, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
    places = [f"paths.log_dir={folder}", f"paths.output_dir={folder}/run"]
    places += [f"paths.data_dir={folder}/data"]
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for name, overrides in cases.items():
            several = ["trainer=ddp", f"trainer.devices={ranks}"] if ranks > 1 else []
            several += ["trainer.sync_batchnorm=false"] if ranks > 1 else []
            cfg = hydra.compose("train", [*several, *BARE, *places, *overrides])
            torch.save(trained(cfg, folder), folder / f"{name}_{ranks}_{rank}.pt")


def trained(cfg: Any, folder: Path) -> dict[str, Any]:
    """All that a rank holds after training, and what it saw and measured on the way."""
    L.seed_everything(cfg.seed, verbose=False)
    data = build_datamodule(cfg)
    task = build_task(cfg, data.evaluates_on, build_teacher(cfg, {}))
    trainer = build_trainer(cfg, folder / "run", quiet=True)
    seen = Seen()
    trainer.callbacks.append(seen)  # pyright: ignore[reportAttributeAccessIssue]
    trainer.fit(task, data)
    state = {k: v.clone() for k, v in task.state_dict().items()}
    final = trainer.test if data.evaluates_on == "test" else trainer.validate
    measured = final(task, data, verbose=False)[0]
    classes = task.class_accuracy
    terms = [*task.regularizers]
    found = {"measured": measured, "classes": classes, "images": task.eval_images}
    return found | {"state": state, "terms": [_state(t) for t in terms], "seen": seen.batches}


def _state(term: Regularizer) -> dict[str, Any]:
    return dict(term.state_dict())


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
