"""Where the pages of a site stand, how they are linked, and how they are written."""

from __future__ import annotations

import hashlib
import re
import shutil
from functools import partial
from pathlib import Path
from posixpath import relpath
from typing import Any
from urllib.parse import quote

from bnnbench.site.grid import WHY

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+-]{0,149}")
_ASSETS = Path(__file__).parent / "assets"
_TEMPLATES = Path(__file__).parent / "templates"
MARKER = ".bnnbench-site"  # says that a folder may be replaced


class Names:
    """Names of files for names of things, whatever those hold: safe, and each used once."""

    def __init__(self, *reserved: str) -> None:
        self._taken = {name.lower() for name in reserved}

    def take(self, text: str) -> str:
        """The text itself where it can name a file that no other has, in upper or lower case."""
        name = text
        if not _PLAIN.fullmatch(text):
            words = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:80]
            name = f"{words}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}"
        start, number = name, 1
        while name.lower() in self._taken:
            number += 1
            name = f"{start}-{number}"
        self._taken.add(name.lower())
        return name


def link(from_page: str, to: str) -> str:
    """The relative address of a file of the site, or of a place in it, as a page links it."""
    path, _, anchor = to.partition("#")
    start = from_page.rpartition("/")[0] or "."
    where = quote(relpath(path, start)) if path else ""
    return f"{where}#{quote(anchor)}" if anchor else where


class Site:
    """The pages that are being written to a folder.

    out: the folder, new or empty.
    has_docs: whether the navigation names them.
    problems: one line each about what could not be shown.
    written: addresses of all files, relative to the folder.
    """

    def __init__(self, out: Path) -> None:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        self.out = out
        self.has_docs = False
        self.problems: list[str] = []
        self.written: set[str] = set()
        self._jinja = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._jinja.globals["why"] = WHY

    def page(self, address: str, template: str, **context: Any) -> None:
        """Write a page; in its template ``url(address)`` is a link to another one."""
        url = partial(link, address)
        context |= {"url": url, "address": address, "has_docs": self.has_docs}
        text = self._jinja.get_template(template).render(**context)
        self._target(address).write_text(text, encoding="utf-8", newline="\n")

    def copy(self, source: Path, address: str) -> str:
        """Copy a file, once; returns its address."""
        if address not in self.written:
            shutil.copyfile(source, self._target(address))
        return address

    def assets(self) -> None:
        """Copy styles and scripts."""
        for file in sorted(_ASSETS.rglob("*")):
            if file.is_file():
                self.copy(file, f"assets/{file.relative_to(_ASSETS).as_posix()}")

    def _target(self, address: str) -> Path:
        path = self.out / address
        path.parent.mkdir(parents=True, exist_ok=True)
        self.written.add(address)
        return path
