"""Markdown of the repository: links, anchors as GitHub's, nothing raw."""

from __future__ import annotations

import pytest

from bnnbench.site.markdown import render, sections, target
from bnnbench.site.pages import Names, link


def html(text: str, known: dict[str, str] | None = None) -> str:
    """The page at docs/page.md where the repository has these addresses."""
    found = known or {}

    def resolve(path: str, anchor: str) -> str | None:
        return f"{found[path]}#{anchor}" if path in found else None

    return render(text, "docs/page.md", resolve).html


def test_links_lead_to_addresses_and_dead_ones_are_words() -> None:
    text = html("[a](x.md#b) [c](gone.md) [d](../y.md)", {"docs/x.md": "X", "y.md": "Y"})
    assert '<a href="X#b">a</a> <span>c</span> <a href="Y#">d</a>' in text


@pytest.mark.parametrize("to", ["https://e.org", "mailto:a@b.c", "//e.org/x"])
def test_links_elsewhere_stay(to: str) -> None:
    assert f'href="{to}"' in html(f"[a]({to})")


@pytest.mark.parametrize(
    "to", ["javascript:alert(1)", "JAVASCRIPT:x", "data:text/html,x", "vbscript:x"]
)
def test_links_that_run_are_none(to: str) -> None:
    assert "<a" not in html(f"[a]({to})")


def test_anchors_are_githubs() -> None:
    text = html("# A `b` c\n\n## Two, words: x_y!\n\n## Same\n\n## Same\n")
    for anchor in ("a-b-c", "two-words-x_y", "same", "same-1"):
        assert f'id="{anchor}"' in text


def test_html_is_shown_and_comments_are_left_out() -> None:
    text = html("<!-- unseen -->\n<script>x</script>\n\n`<b>`\n")
    assert "unseen" not in text
    assert "&lt;script&gt;" in text
    assert "<code>&lt;b&gt;</code>" in text


def test_code_of_an_unknown_language_is_plain() -> None:
    assert "&lt;x&gt;" in html("```nolanguage\n<x>\n```")
    assert "<span" in html("```python\nx = 1\n```")


def test_sections_are_chapters() -> None:
    assert sections("# t\n\n## a\n\nx\n\n## b\n\ny\n") == {"a": "\n\nx\n\n", "b": "\n\ny\n"}


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("x.md", ("docs/x.md", "")),
        ("../a/b.md#c", ("a/b.md", "c")),
        ("#c", ("docs/page.md", "c")),
        ("a%20b.md", ("docs/a b.md", "")),
        ("../../up.md", ("../up.md", "")),
    ],
)
def test_targets(to: str, expected: tuple[str, str]) -> None:
    assert target(to, "docs/page.md") == expected


@pytest.mark.parametrize(
    ("page", "to", "expected"),
    [
        ("index.html", "runs/a.html", "runs/a.html"),
        ("runs/a.html", "index.html", "../index.html"),
        ("source/a/b.html", "docs/x.html#y z", "../../docs/x.html#y%20z"),
        ("runs/a.html", "runs/b?c%.html", "b%3Fc%25.html"),
    ],
)
def test_addresses_are_relative(page: str, to: str, expected: str) -> None:
    assert link(page, to) == expected


def test_names_of_files_are_used_once() -> None:
    names = Names("index")
    asked = ["a", "A", "a", "index", "../x", "con?", "", "ü"]
    given = [names.take(name) for name in asked]
    assert given[0] == "a"
    assert len({name.lower() for name in given}) == len(asked)
    assert all(name and not set(name) & set("/\\?#%:") and name[0] != "." for name in given)
