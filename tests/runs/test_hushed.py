"""Which messages of other packages are left out, and that others are not."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest

from bnnbench.runs import hushed
from bnnbench.runs.hushed import hush

SAID = [
    "`isinstance(treespec, LeafSpec)` is deprecated, use `isinstance(treespec, TreeSpec)`",
    "The number of training batches (22) is smaller than the logging interval Trainer(log_",
    "The 'train_dataloader' does not have many workers which may be a bottleneck. Consider",
    "It is recommended to use `self.log('test/acc', ..., sync_dist=True)` when logging on epoch "
    "level in distributed setting to accumulate the metric across devices.",
    "Checkpoint directory /tmp/run/checkpoints exists and is not empty.",
]
OTHERS = [
    "The dataloader has 3 batches, but one was empty",
    "Detected call of `lr_scheduler.step()` before `optimizer.step()`",
    "trainer.sync_batchnorm needs GPUs: here each process normalises its own batches",
]


@pytest.mark.parametrize("text", SAID)
def test_these_are_left_out(text: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hush()
        warnings.warn(text, UserWarning, stacklevel=1)
        warnings.warn(text, FutureWarning, stacklevel=1)
    assert caught == []


@pytest.mark.parametrize("text", OTHERS)
def test_others_are_shown(text: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hush()
        warnings.warn(text, UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == [text]


def test_of_a_logger_by_its_words_alone(caplog: pytest.LogCaptureFixture) -> None:
    hush()
    hush()
    logger = logging.getLogger("torch.utils.cpp_extension")
    logger.warning("No CUDA runtime is found, using CUDA_HOME='%s'", "/usr/local/cuda")
    logger.warning("Something else about %s", "CUDA")
    assert [record.getMessage() for record in caplog.records] == ["Something else about CUDA"]
    assert len(logger.filters) == 1


def test_our_own_warnings_are_a_line_and_others_stay_as_they_are() -> None:
    hush()
    hush()
    own = Path(hushed.__file__).parents[1] / "data" / "usable.py"
    text = warnings.formatwarning(UserWarning("left out\n  two"), UserWarning, str(own), 7)
    assert text == "warning: left out two\n"
    text = warnings.formatwarning(UserWarning("x"), UserWarning, "/elsewhere/code.py", 7)
    assert text == "/elsewhere/code.py:7: UserWarning: x\n"
