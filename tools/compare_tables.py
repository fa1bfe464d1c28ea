"""Compare the committed tables of two states number by number.

python tools/compare_tables.py HEAD~3 HEAD
python tools/compare_tables.py /some/checkout . --renamed sweep_66065ba6=digits --allow epochs

A state is a git revision or a folder; its tables are results/tables/*.md. A table is matched by
its name, by --renamed, or by its sweep's command and cells; rows by their quantizer, in their
order; columns by their header, wherever they stand. Named is every measured or published number
that changed, appeared or vanished, and every number of another column that changed. Marks (*, †,
§) are no numbers. The exit code is 1 if anything changed in a column that --allow does not name,
2 for a state that is none.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

TABLES, SWEEPS = "results/tables", "results/sweeps"
_MEASURED = re.compile(
    "accuracy|mAP|COCO|best epoch|published|delta|seeds|W/A|params|OPs|packed|train s|epochs|"
    "compression|training images|test images|NLL|Brier|ECE|top-5"
)
_NUMBER = re.compile(r"[+-]?\d[\d.]*(?:e[+-]?\d+)?")
_IN_NOTES = re.compile(r"(training images|test images) (\d+)")  # facts that all measured rows share
_OF_ALL = re.compile(r"- all (?:measured )?rows: (.*)")
_QUANTIZER = re.compile(r"(?:^|, )quantizer ([^,]+)")

Read = Callable[[str], str]


@dataclass
class State:
    """Texts of the tables by name, and what identifies each one's sweep: command and cells."""

    tables: dict[str, str]
    sweeps: dict[str, str] = field(default_factory=dict)


@dataclass
class Change:
    """One number, or row, or table, that is not what it was."""

    table: str
    row: str
    column: str
    old: str
    new: str

    def __str__(self) -> str:
        where = ": ".join(filter(None, (self.table, self.row, self.column)))
        return f"{where}: {self.old or 'nothing'} -> {self.new or 'nothing'}"


def load(state: str) -> State:
    """Tables and sweeps of a folder, or of a git revision. Raises ValueError for neither."""
    if Path(state).is_dir():
        files = [str(p.relative_to(state)) for p in Path(state).glob("results/*/*")]
        return _state(files, lambda path: Path(state, path).read_text(encoding="utf-8"))
    return _state(
        _git("ls-tree", "-r", "--name-only", state, "results").splitlines(), _shown(state)
    )


def _shown(revision: str) -> Read:
    return lambda path: _git("show", f"{revision}:{path}")


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if run.returncode:
        raise ValueError(f"neither a folder nor a revision: {run.stderr.strip()}")
    return run.stdout


def _state(files: list[str], read: Read) -> State:
    paths = [Path(file) for file in files]
    tables = [p for p in paths if str(p.parent) == TABLES and p.suffix == ".md"]
    sweeps = [p for p in paths if str(p.parent) == SWEEPS and p.suffix == ".json"]
    named = {p.stem: json.loads(read(str(p))) for p in sweeps}
    return State(
        {p.stem: read(str(p)) for p in tables if p.stem != "index"},
        {name: json.dumps([m["command"], _cells(m)]) for name, m in named.items()},
    )


def _cells(manifest: dict) -> list:
    return [cell["overrides"] for cell in manifest["cells"]]


def pairs(old: State, new: State, renamed: dict[str, str]) -> dict[str, str]:
    """Name of each old table -> its name now; left out where it has none."""
    by_sweep = {identity: name for name, identity in new.sweeps.items()}
    found = {}
    for name in old.tables:
        now = renamed.get(name, name)
        if now not in new.tables:
            now = by_sweep.get(old.sweeps.get(name, ""), now)
        if now in new.tables:
            found[name] = now
    return found


def parse(text: str) -> list[dict[str, str]]:
    """Rows of a Markdown table by header, with the counts that a note states for all of them."""
    lines = [_split(line) for line in text.splitlines() if line.startswith("|")]
    header = [name.rstrip("§") for name in lines[0]] if lines else []
    rows = [dict(zip(header, line, strict=True)) for line in lines[2:]]
    for note in _OF_ALL.findall(text):
        for name, number in _IN_NOTES.findall(note):
            for row in rows:
                if _NUMBER.findall(row.get("seeds", "1")):  # measured
                    row.setdefault(name, number)
        if one := _QUANTIZER.search(note):
            for row in rows:
                row.setdefault("quantizer", one[1])
    return rows


def _split(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip())[1:-1]
    return [cell.strip().replace(r"\|", "|") for cell in cells]


def changes(table: str, old: str, new: str) -> Iterator[Change]:
    """What differs between two states of a table."""
    before, after = _by_label(parse(old)), _by_label(parse(new))
    for label in dict.fromkeys([*before, *after]):
        was, now = before.get(label, {}), after.get(label, {})
        for column in dict.fromkeys([*was, *now]):
            first, second = (_NUMBER.findall(row.get(column, "")) for row in (was, now))
            counted = _MEASURED.match(column) or (first and second)
            if first != second and counted:
                yield Change(table, label, column, was.get(column, ""), now.get(column, ""))


def _by_label(rows: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    """Rows by their quantizer and which of its rows it is: "adabin", "adabin (2)"."""
    labelled: dict[str, dict[str, str]] = {}
    counts: dict[str, int] = {}
    for row in rows:
        name = row.get("quantizer", "row")
        counts[name] = counts.get(name, 0) + 1
        labelled[name if counts[name] == 1 else f"{name} ({counts[name]})"] = row
    return labelled


def compare(old: State, new: State, renamed: dict[str, str]) -> Iterator[Change]:
    """All changes, tables that vanished or appeared among them."""
    found = pairs(old, new, renamed)
    for name in sorted(old.tables):
        if name in found:
            yield from changes(found[name], old.tables[name], new.tables[found[name]])
        else:
            yield Change(name, "", "", "a table", "")
    for name in sorted(set(new.tables) - set(found.values())):
        yield Change(name, "", "", "", "a table")


def main(arguments: list[str]) -> int:
    """Print what changed; 0 if nothing did other than in the columns allowed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", help="git revision or folder")
    parser.add_argument("new", help="git revision or folder")
    parser.add_argument("--renamed", nargs="*", default=[], metavar="OLD=NEW", help="tables")
    parser.add_argument("--allow", nargs="*", default=[], metavar="COLUMN", help="may change")
    args = parser.parse_args(arguments)
    try:
        old, new = load(args.old), load(args.new)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if not old.tables:
        print(f"{args.old} has no tables in {TABLES}", file=sys.stderr)
        return 2
    renamed = dict(pair.split("=", 1) for pair in args.renamed)
    refused = 0
    for change in compare(old, new, renamed):
        allowed = change.column in args.allow
        refused += not allowed
        print(f"{'allowed: ' if allowed else ''}{change}")
    print(f"{len(old.tables)} tables compared: {refused} changes")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
