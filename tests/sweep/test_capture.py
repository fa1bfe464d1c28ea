"""What is printed while a screen is painted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import logging, os, subprocess, sys
from bnnbench.sweep.capture import captured
said = []
print("before", flush=True)
logging.basicConfig(stream=sys.stdout, level=logging.INFO)
launcher = logging.getLogger("hydra_plugins.hydra_joblib_launcher._core")
with captured(said.append):
    print("of this process")
    print("half a line", end="", file=sys.stderr)
    sys.stderr.flush()
    os.system("echo of a child; echo")
    launcher.info("is launching 3 jobs")
    launcher.warning("a warning")
    left = subprocess.Popen(["sleep", "30"])  # it holds the descriptors
left.kill()
launcher.info("later")
print("after", said, flush=True)
"""


def test_lines_of_all_go_where_they_are_wanted() -> None:
    leader, follower = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=follower, stdout=follower, stderr=follower
    ) as process:
        os.close(follower)
        chunks = []
        while True:
            try:
                chunk = os.read(leader, 65536)
            except OSError:
                break
            if not chunk:
                break
            chunks.append(chunk)
        assert process.wait(timeout=20) == 0
    os.close(leader)
    before, later, after = b"".join(chunks).decode().split("\r\n")[:3]
    said = "['of this process', 'half a lineof a child', "
    assert (before, later) == ("before", "INFO:hydra_plugins.hydra_joblib_launcher._core:later")
    assert after.startswith(f"after {said}")
    assert "WARNING:hydra_plugins.hydra_joblib_launcher._core:a warning" in after
    assert "is launching" not in after


def test_what_is_no_terminal_stays_as_it_is(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=20
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "before"
    assert "of a child" in lines
    assert lines[-1] == "after []"
