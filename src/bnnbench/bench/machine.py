"""Which machine and which code measured."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bnnbench.cores import cores
from bnnbench.records.provenance import git_state, versions
from bnnbench.runtime import kernel


def described() -> dict[str, Any]:
    """CPU, kernel, versions, commit and the load while it began, as a bench file has them."""
    name, flags = cpu()
    active, path = kernel.active()
    machine = {
        "cpu": name,
        "flags": flags,
        "cores": cores(),
        "kernel": path if active else f"float: {path}",
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"machine": machine, "versions": versions(), "git": git_state(), "date": when}


def cpu() -> tuple[str, list[str]]:
    """The CPU's name, and its flags where the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    pairs = (line.split(":", 1) for line in reversed(lines) if ":" in line)
    fields = {key.strip(): value.strip() for key, value in pairs}
    flags = fields.get("flags", fields.get("Features", "")).split()
    return fields.get("model name", platform.machine()), flags
