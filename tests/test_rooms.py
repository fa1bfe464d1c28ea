"""The order of the rooms: each imports what stands below it, and general code names no method."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bnnbench.config import options

SOURCE = Path(__file__).resolve().parents[1] / "src"
PACKAGE = SOURCE / "bnnbench"

# Lowest first; a room imports none that stands behind it. A loose file is a room of its own, and
# `__init__` the package itself, the front door.
ORDER = (
    "paths",
    "cores",
    "runtime",
    "quantizers",
    "layers",
    "config",
    "backbones",
    "losses",
    "optim",
    "metrics",
    "data",
    "plots",
    "records",
    "resolvers",
    "checks",
    "callbacks",
    "tasks",
    "runs",
    "packing",
    "bench",
    "report",
    "site",
    "sweep",
    "__init__",
    "hydra_plugins",
    "commands",
    "__main__",
    "train",
    "report.py",
    "data.py",
    "export.py",
)
MOST_LOOSE_FILES = 8
# Imports that go up all the same.
UPWARD = {"bnnbench/records/provenance: bnnbench.__version__"}  # which stands there by itself

GENERAL = ("tasks", "runs", "report")
# What a method is compared with: its twin in full precision, which every method has.
NAMED = {"fp32"}


def room_of(file: Path) -> str:
    """The room that a file of src stands in."""
    parts = file.relative_to(SOURCE).with_suffix("").parts
    if parts[0] != "bnnbench":
        return f"{parts[0]}.py" if parts in (("report",), ("data",), ("export",)) else parts[0]
    return parts[1]


def imported(text: str, package: Sequence[str]) -> Iterator[str]:
    """Dotted paths of all that code in ``package`` imports from bnnbench, anywhere in it."""
    for node in ast.walk(ast.parse(text)):
        paths: list[str] = []
        if isinstance(node, ast.Import):
            paths = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            home = ".".join([*above, *filter(None, [node.module])])
            paths = [f"{home}.{name.name}" for name in node.names]
        yield from (path for path in paths if path.split(".")[0] == "bnnbench")


def imports_of(file: Path) -> list[str]:
    """What a file of src imports from the package, each as "its place: dotted path"."""
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return [f"{'/'.join(parts)}: {path}" for path in imported(file.read_text("utf-8"), parts[:-1])]


def room_imported(path: str) -> str:
    """The room of a dotted path; of a name of the package itself its front door."""
    _, first, *_ = [*path.split("."), ""]
    is_room = (PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").is_file()
    return first if first and is_room else "__init__"


def upward(file: Path) -> list[str]:
    """What a file imports from rooms above its own."""
    place = ORDER.index(room_of(file))
    lines = [line for line in imports_of(file) if line not in UPWARD]
    return [line for line in lines if ORDER.index(room_imported(line.split(": ")[1])) > place]


def test_every_room_has_its_place() -> None:
    assert {room_of(file) for file in SOURCE.rglob("*.py")} == set(ORDER)
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_LOOSE_FILES


def test_no_room_imports_one_above_it() -> None:
    assert [line for file in SOURCE.rglob("*.py") for line in upward(file)] == []


def test_every_exception_is_needed() -> None:
    assert {line for file in SOURCE.rglob("*.py") for line in imports_of(file)} >= UPWARD


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("import bnnbench.runs.run as r", "bnnbench.runs.run"),
        ("from bnnbench import runs", "bnnbench.runs"),
        ("from bnnbench.runs import run", "bnnbench.runs.run"),
        ("from ..runs.run import execute", "bnnbench.runs.run.execute"),
        ("def f():\n    from bnnbench.runs import run", "bnnbench.runs.run"),
        (
            "if TYPE_CHECKING:\n    from bnnbench.runs.run import execute",
            "bnnbench.runs.run.execute",
        ),
    ],
)
def test_an_import_is_found_wherever_it_stands(text: str, path: str) -> None:
    assert list(imported(text, ("bnnbench", "losses"))) == [path]
    assert room_imported(path) == "runs"


def words(file: Path) -> Iterator[str]:
    """The words of a file's strings, docstrings apart, and its identifiers."""
    tree = ast.parse(file.read_text("utf-8"))
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    names = {ast.Name: "id", ast.Attribute: "attr", ast.arg: "arg", ast.keyword: "arg"}
    names |= {ast.alias: "name", ast.FunctionDef: "name", ast.ClassDef: "name"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield from re.findall(r"\w+", node.value)
        elif type(node) in names:
            yield from re.findall(r"[^\W_]+", getattr(node, names[type(node)]) or "")


@pytest.mark.parametrize("room", GENERAL)
def test_general_code_names_no_method(room: str) -> None:
    methods = set(options("quantizer")) - NAMED
    found = {
        f"{file.relative_to(PACKAGE)}: {word}"
        for file in (PACKAGE / room).rglob("*.py")
        for word in words(file)
        if word.lower() in methods
    }
    assert found == set()
