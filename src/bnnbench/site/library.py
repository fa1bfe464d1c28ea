"""The docs and the files that they link: which have a page, and where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bnnbench.report.markup import one_line
from bnnbench.site.boards import Addresses
from bnnbench.site.markdown import Rendered, highlighted, render, sections, target
from bnnbench.site.pages import Site, link

_PICTURES = {".png", ".svg", ".jpg"}
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".c": "c", ".toml": "toml"}
_MOST_BYTES = 400_000  # of a file that is shown
_INDEX = "docs/README.md"
_OTHERS = ("README.md", "results/README.md", "results/published/README.md", "data/README.md")
_LAST = ("CHANGELOG.md", "SECURITY.md")


class Chapter(NamedTuple):
    """A heading of the navigation and what stands below it: (address, title)."""

    title: str
    pages: list[tuple[str, str]]


class Library:
    """Pages of the repository at ``root``; empty where that has no docs.

    pages: address of each Markdown page, by its path in the repository.
    """

    def __init__(self, root: Path, site: Site, to: Addresses) -> None:
        self.root, self._site, self._to = root.resolve(), site, to
        self._sources: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        found = [
            *_OTHERS,
            *_LAST,
            *(f"docs/{p.name}" for p in sorted((root / "docs").glob("*.md"))),
        ]
        has_docs = (root / _INDEX).is_file()
        present = [path for path in found if has_docs and (root / path).is_file()]
        self.pages = {path: _address(path) for path in present}
        titles = {path: _title(self._text(path)) for path in self.pages}
        self.titles = {self.pages[path]: title for path, title in titles.items()}

    def write(self) -> None:
        """Write every page, then the files that they show the text of."""
        menu = self.menu()
        for path, address in self.pages.items():
            page = self.rendered(self._text(path), path, address)
            self._site.page(address, "page.html", page=page, menu=menu, active="docs")
        for path, address in sorted(self._sources.items()):
            text = self._text(path)
            html = highlighted(text, _LANGUAGES.get(Path(path).suffix, "text"))
            self._site.page(address, "source.html", path=path, html=html, text=text, active="docs")

    def rendered(self, text: str, path: str, address: str) -> Rendered:
        """Markdown of the page at ``path``, for the page of the site at ``address``."""

        def resolve(to: str, anchor: str) -> str | None:
            found = self.address(to)
            if found is None:
                self._site.problems.append(f"{path}: a link leads nowhere: {to}")
                return None
            return link(address, f"{found}#{anchor}" if anchor else found)

        return render(text, path, resolve)

    def methods(self) -> dict[str, str]:
        """The chapters of docs/methods.md by the method's name."""
        return sections(self._text("docs/methods.md")) if "docs/methods.md" in self.pages else {}

    def menu(self) -> list[Chapter]:
        """All pages under the headings of the docs' index, each where it is first named."""
        if not self.pages:
            return []
        seen = {_INDEX}
        chapters = [Chapter("", [(self.pages[_INDEX], "All pages, by question")])]
        for title, text in sections(self._text(_INDEX)).items():
            found = [path for path in _linked(text) if path in self.pages]
            new = [path for path in dict.fromkeys(found) if path not in seen]
            seen.update(new)
            chapters.append(Chapter(title, [self._entry(path) for path in new]))
        rest = [path for path in self.pages if path not in seen]
        return [*chapters, Chapter("Besides", [self._entry(path) for path in rest])]

    def address(self, path: str) -> str | None:
        """Where a file of the repository stands in the site; None for what has no place there."""
        if path in self.pages:
            return self.pages[path]
        if found := self._generated(path):
            return found
        file = (self.root / path).resolve()
        if not file.is_relative_to(self.root) or not file.exists():
            return None
        if file.is_dir():
            return self.pages.get(f"{path}/README.md") or self._listed(path, file)
        if file.suffix in _PICTURES:
            return self._site.copy(file, path)
        if file.stat().st_size > _MOST_BYTES:
            return None
        return self._sources.setdefault(path, f"source/{path}.html")

    def _listed(self, path: str, folder: Path) -> str:
        """A page that lists a folder's files, and shows them."""
        address = f"source/{path}/index.html"
        if address not in self._folders.values():
            self._folders[path] = address
            names = [file.name for file in sorted(folder.iterdir()) if file.is_file()]
            files = [(name, self.address(f"{path}/{name}")) for name in names]
            self._site.page(address, "folder.html", path=path, files=files, active="docs")
        return address

    def _generated(self, path: str) -> str | None:
        """The site's own page of a table, of a run, or of all of them."""
        name = Path(path).stem
        folder = str(Path(path).parent)
        return {
            "results/tables": "tables.html" if name == "index" else self._to.tables.get(name),
            "results/runs": self._to.runs.get(name),
            "results": {"runs": "runs.html", "tables": "tables.html"}.get(name),
        }.get(folder)

    def _text(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8", errors="replace")

    def _entry(self, path: str) -> tuple[str, str]:
        return self.pages[path], self.titles[self.pages[path]]


def _address(path: str) -> str:
    return "docs/index.html" if path == _INDEX else path.removesuffix(".md") + ".html"


def _title(text: str) -> str:
    line = next((line for line in text.splitlines() if line.startswith("# ")), "# untitled")
    return one_line(line[2:].replace("`", ""))


def _linked(text: str) -> Iterator[str]:
    for to in re.findall(r"\]\(([^)\s]+)\)", text):
        yield target(to, _INDEX)[0]
