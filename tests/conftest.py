"""Fixtures of all tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real data in {folder}")
    return folder


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Callable[..., DictConfig]]:
    """Composes conf/train.yaml for a run in a temporary folder: ``compose("seed=1", ...)``."""
    from bnnbench import resolvers

    resolvers.register()

    def composed(*overrides: str) -> DictConfig:
        folders = [f"paths.log_dir={tmp_path}/logs", f"paths.output_dir={tmp_path}/run"]
        folders += [f"paths.data_dir={tmp_path}/data"]
        (tmp_path / "run").mkdir(exist_ok=True)
        return hydra.compose("train", [*folders, "callbacks.progress_bar=null", *overrides])

    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield composed


@pytest.fixture
def short() -> list[str]:
    """Overrides of a run of seconds: ResNet-20 on a few batches of digits."""
    return [
        "backbone=resnet20",
        "trainer.max_epochs=3",
        "trainer.accelerator=cpu",
        "+trainer.limit_train_batches=3",
        "logger=none",
    ]
