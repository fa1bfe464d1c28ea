"""Cores are those that a process was given, not those of its machine."""

import os
import subprocess
import sys

import pytest

from bnnbench.cores import cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity masks of Linux")
def test_a_process_of_one_core_has_one() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from bnnbench.cores import cores; print(cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_there_is_one_at_least() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
