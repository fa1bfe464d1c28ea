"""Markdown pages of the repository as pages of the site: links, anchors, contents."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from posixpath import normpath

_COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
_OUTSIDE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//")

# From a path in the repository and an anchor ("" for none) to an address, None where none is.
Resolve = Callable[[str, str], str | None]


@dataclass
class Rendered:
    """HTML of a page, its title, and its chapters: (anchor, words)."""

    html: str
    title: str
    chapters: list[tuple[str, str]]


def render(text: str, place: str, resolve: Resolve) -> Rendered:
    """The page at ``place`` of the repository, its links resolved.

    A link that leads nowhere is left as plain words.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "highlight": highlighted}).enable("table")
    tokens = parser.parse(_COMMENT.sub("", text))
    title, chapters = place, []
    used: list[str] = []
    for token, inline in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open" and inline is not None:
            words = _words(inline)
            anchor = _anchor(words, used)
            token.attrSet("id", anchor)
            if token.tag == "h1" and title == place:
                title = words
            if token.tag == "h2":
                chapters.append((anchor, words))
        if token.type == "inline":
            _link(token.children or [], place, resolve)
        if token.type == "table_open":
            token.attrSet("class", "prose")
    html = parser.renderer.render(tokens, parser.options, {})
    html = html.replace('<table class="prose">', '<div class="scroll"><table class="prose">')
    return Rendered(html.replace("</table>", "</table></div>"), title, chapters)


def sections(text: str) -> dict[str, str]:
    """The chapters of a page (`## <name>`) by name, without that line."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def highlighted(code: str, language: str, _attributes: str = "") -> str:
    """Code as HTML with classes; "" for a language that nobody knows, which is then plain."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language.split()[0] if language else "text")
    except ClassNotFound:
        return ""
    return highlight(code, lexer, HtmlFormatter(nowrap=True))


def _words(inline) -> str:
    return "".join(
        child.content for child in inline.children or [] if child.type in ("text", "code_inline")
    )


def _anchor(words: str, used: list[str]) -> str:
    """The anchor that GitHub gives a heading."""
    anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
    times = used.count(anchor)
    used.append(anchor)
    return f"{anchor}-{times}" if times else anchor


def _link(children: list, place: str, resolve: Resolve) -> None:
    """Rewrite the links and pictures of a line."""
    dropped = 0
    for child in children:
        key = {"link_open": "href", "image": "src"}.get(child.type)
        if child.type == "link_close" and dropped:
            child.tag, dropped = "span", dropped - 1
        if key is None:
            continue
        to = str(child.attrGet(key) or "")
        address = to if _OUTSIDE.match(to) else resolve(*target(to, place))
        if address is not None:
            child.attrSet(key, address)
        elif key == "href":
            child.tag, child.attrs, dropped = "span", {}, dropped + 1


def target(to: str, place: str) -> tuple[str, str]:
    """Path in the repository and anchor of a link on the page at ``place``."""
    from urllib.parse import unquote

    path, _, anchor = unquote(to).partition("#")
    folder = PurePosixPath(place).parent
    return normpath(str(folder / path)) if path else place, anchor
