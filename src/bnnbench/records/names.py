"""Names that become a file or a folder: one part of a path, so that none leaves its place."""

from __future__ import annotations


def is_name(text: object) -> bool:
    """Whether ``text`` can name a file or folder: printable, without separators, not ``..``."""
    if not isinstance(text, str) or text.strip() in ("", ".", ".."):
        return False
    return text.isprintable() and not set(text) & set("/\\")


def check_name(key: str, text: object) -> None:
    """Refuse what is no name; ``key`` stands in the message. Raises ValueError."""
    if not is_name(text):
        raise ValueError(f"{key}={text!r} is no name: write letters and digits, without / and ..")
