"""``bnnbench data check <folder>``: what training would read there, and what it could not.

Every image is decoded, by the decoder that training uses.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def run() -> None:
    """The command with the arguments of ``sys.argv``; exits with 1 where something is wrong."""
    raise SystemExit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what a folder holds and draw its contact sheet; the exit code, 1 for unread files."""
    options = _parser().parse_args(arguments)
    folder = Path(options.folder).expanduser()
    if not folder.is_dir():
        print(f"error: {folder} is no folder: name the one that holds the images", file=sys.stderr)
        return 1
    from bnnbench.data.check import check  # seconds

    return int(not check(folder, Path(options.out or f"{folder.resolve().name}_check.png")))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bnnbench data", description=__doc__)
    check = parser.add_subparsers(required=True).add_parser("check", help="look at a folder")
    check.add_argument("folder", help="class folders, or a tree of VOC's layout")
    check.add_argument("--out", help="the contact sheet; <folder's name>_check.png if not given")
    return parser
