"""What is installed: extras, exact versions, and the environment of another Python."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
MAKE = shutil.which("make")


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text("utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


def pinned(name: str = "constraints.txt") -> dict[str, str]:
    """Versions by canonical name."""
    pairs = (line.split("==") for line in lines(name))
    return {canonicalize_name(package): version for package, version in pairs}


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_every_requirement_has_an_exact_version_that_fits(extra: str) -> None:
    for text in EXTRAS[extra] if extra else PROJECT["dependencies"]:
        requirement = Requirement(text)
        if requirement.name == "bnnbench":
            assert requirement.extras <= set(EXTRAS)
            continue
        version = pinned()[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), text


def test_versions_for_the_cpu_are_those_without_cuda() -> None:
    cuda = ("nvidia-", "cuda-", "triton==")
    assert lines("constraints-cpu.txt") == [
        line for line in lines("constraints.txt") if not line.startswith(cuda)
    ]
    assert len(lines("constraints.txt")) - len(lines("constraints-cpu.txt")) > 15


def test_no_file_of_the_installation_names_an_index_or_a_place() -> None:
    for name in ("pyproject.toml", "constraints.txt", "constraints-cpu.txt", "Makefile"):
        text = (ROOT / name).read_text("utf-8")
        assert not re.search(r"https?://|file:|--index|--find-links|/home/|/opt/", text), name


def test_the_page_has_every_extra() -> None:
    page = (ROOT / "docs" / "installation.md").read_text("utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.M) == list(EXTRAS)
    assert f"torch=={pinned()['torch']}+cpu" in page


@pytest.mark.skipif(MAKE is None, reason="needs make")
@pytest.mark.parametrize("python", ["python3.12", "/usr/local/bin/python3.13"])
def test_another_python_has_an_environment_of_its_own(python: str) -> None:
    done = subprocess.run(
        [str(MAKE), "--dry-run", "test-python", f"PYTHON={python}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    folder = f".venv-{Path(python).name}"
    assert f"{python} -m venv {folder}" in done.stdout
    pytest_run = '-m pytest -n 2 --dist loadfile --max-worker-restart 0 -m "not slow"'
    assert f"{folder}/bin/python {pytest_run}" in done.stdout
