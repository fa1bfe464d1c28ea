"""The hash of a run's code: it follows all that the run reaches, and only what code says."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
from omegaconf import DictConfig

from bnnbench.config import load_option, options, target, to_dict
from bnnbench.layers import QuantizerSpec
from bnnbench.losses import task_loss
from bnnbench.quantizers import NONLINEARITIES
from bnnbench.records import source
from bnnbench.records.fingerprint import fingerprinted
from bnnbench.records.source import GENERAL, NAMED, PACKAGE, reached, source_hash, targets
from bnnbench.tasks.recipe import OPTIMIZERS, Recipe
from torch import nn

QUANTIZERS, LOSSES = options("quantizer"), options("loss")


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., Path]:
    """Copies the package and the options beside it, with texts of a file replaced."""

    def copy(file: str = "", **replaced: str) -> Path:
        raise NotImplementedError

    return copy
