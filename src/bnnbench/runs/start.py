"""What Hydra calls before a single run: a mistake ends it before its folder is made."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from bnnbench.checks.errors import full_error, is_told, message
from bnnbench.checks.places import check_devices, check_writable
from bnnbench.checks.values import check_config
from bnnbench.records.fingerprint import fingerprinted
from bnnbench.runs.reuse import check_start


class StartChecks(Callback):
    """Checks the config, its files and the run's folder; a sweep does so for each of its cells."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """End the process with the message of what is wrong.

        An exception would not: Hydra warns of it and goes on.
        """
        try:
            _check(config)
        except Exception as error:
            if full_error() or not is_told(error):
                traceback.print_exc()
            raise SystemExit(message(error)) from error


def _check(config: DictConfig) -> None:
    check_config(config)
    if "train" in config:  # not of report.py
        check_start(config)
        fingerprinted(config)  # opens files, whose absence Hydra would hide in its own error
        check_devices(config)
    check_writable(Path(config.hydra.run.dir))
