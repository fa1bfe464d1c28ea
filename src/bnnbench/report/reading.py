"""Manifests, results and error texts as they lie on disk: what is there, missing or damaged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from bnnbench.records.exports import with_export
from bnnbench.records.names import check_name
from bnnbench.records.source import source_hash
from bnnbench.records.store import read_result_file
from bnnbench.report.rows import Result, lookup


class Found(NamedTuple):
    """What the runs of a sweep left, each by its name.

    results: what finished runs say. failures: texts of errors. damaged: what is wrong with a file.
    """

    results: dict[str, Result]
    failures: dict[str, str]
    damaged: dict[str, str]


def _named(run: str) -> str:
    check_name("run", run)
    return run


class _Cell(BaseModel):
    overrides: dict[str, str]
    run: Annotated[str, AfterValidator(_named)]
    fingerprint: str
    settings: dict[str, Any]


class _Manifest(BaseModel):
    version: Literal[2] = Field(alias="schema")
    name: str
    command: str
    title: str | None = None
    not_run: str | None = None
    table: dict[str, Any] | None
    scale: str | None
    scale_notes: str | None
    swept: list[str]
    headline: str | None
    shared: dict[str, Any]
    cells: list[_Cell]


def collect(manifest: dict[str, Any], run_folders: list[Path]) -> Found:
    """Results and error texts of a sweep's cells; a damaged file costs its own cell only."""
    found = Found({}, {}, {})
    for cell in manifest["cells"]:
        run = cell["run"]
        try:
            result = find_result(cell, run_folders)
            if result:
                found.results[run] = result[1]
                continue
            if (text := _error(run, run_folders)) is not None:
                found.failures[run] = text
        except ValueError as error:
            found.damaged[run] = str(error)
    return found


def find_result(cell: dict[str, Any], run_folders: list[Path]) -> tuple[Path, Result] | None:
    """The file with a cell's result, and the result; None if no folder has one of this config.

    Raises ValueError if a file is damaged and no other folder has the result.
    """
    complaint = None
    for folder in run_folders:
        for path in (folder / cell["run"] / "result.json", folder / f"{cell['run']}.json"):
            try:
                result = read_result_file(path) if path.is_file() else None
            except ValueError as error:
                complaint = complaint or error
                continue
            if result and result["fingerprint"] == cell["fingerprint"]:
                return path, with_export(result, path)
    if complaint:
        raise complaint
    return None


def all_results(folder: Path) -> list[Result]:
    """Every result of a folder of `<run>.json`; a damaged one is named on stderr and left out."""
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            found.append(read_result_file(file))
        except ValueError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def code_hashes(results: dict[str, Result]) -> dict[str, str]:
    """Hash of the code behind every result as that code is now, by fingerprint."""
    hashes: dict[str, str] = {}
    known: dict[str, str] = {}
    for result in results.values():
        if lookup(result, "config", "quantizer") is None:
            continue
        key = json.dumps(result["config"] | {"seed": None}, sort_keys=True)
        if key not in known:
            known[key] = source_hash(result["config"])
        hashes[result["fingerprint"]] = known[key]
    return hashes


def read_json(path: Path) -> dict[str, Any]:
    """The manifest of a sweep. Raises ValueError, saying what to do, if it cannot be used."""
    content = _load(path)
    if content.get("schema") == 1:
        raise ValueError(f"{path} is of version 1: python tools/rekey.py gives it today's names")
    try:
        _Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path} is damaged ({place}: {first['msg']}): run it again") from None
    return content


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): delete it and run its command again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged (no mapping): delete it and run its command again")
    return content


def _error(run: str, run_folders: list[Path]) -> str | None:
    for path in (folder / run / "error.txt" for folder in run_folders):
        if path.is_file():
            try:
                return path.read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                raise ValueError(f"{path} cannot be read ({error})") from error
    return None
