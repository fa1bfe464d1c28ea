"""A page for each method: its chapter of the docs, its plot, all that was measured of it."""

from __future__ import annotations

from bnnbench.site.boards import Addresses, leaderboard
from bnnbench.site.entries import Entry
from bnnbench.site.library import Library
from bnnbench.site.markdown import Rendered
from bnnbench.site.pages import Site


def write_methods(site: Site, entries: list[Entry], library: Library, to: Addresses) -> None:
    """Write them all, and a list with the best score of each on each data set."""
    by_method: dict[str, list[Entry]] = {}
    for entry in entries:
        by_method.setdefault(entry.method, []).append(entry)
    chapters = library.methods()
    listed = []
    for method, address in to.methods.items():
        own = by_method.get(method, [])
        chapter = _chapter(chapters.get(method), address, library)
        grid = leaderboard("board", own, to)
        site.page(
            address,
            "method.html",
            method=method,
            chapter=chapter,
            grid=grid,
            active="methods",
        )
        listed.append((method, address, _counted(own), _plot(method, site), bool(chapter)))
    site.page("methods/index.html", "methods.html", methods=listed, active="methods")


def _chapter(text: str | None, address: str, library: Library) -> Rendered | None:
    return None if text is None else library.rendered(text, "docs/methods.md", address)


def _plot(method: str, site: Site) -> str:
    """The address of its plot, which its chapter has brought into the site; "" without one."""
    address = f"docs/methods/{method}.png"
    return address if address in site.written else ""


def _counted(own: list[Entry]) -> str:
    settings = sum(entry.kind == "measured" for entry in own)
    printed = len(own) - settings
    parts = [f"{settings} measured" if settings else "", f"{printed} published" if printed else ""]
    return ", ".join(filter(None, parts)) or "not measured"
