"""Overrides with a user's own words in them, as they can be pasted into a shell.

Two grammars read such a line: the shell's, and Hydra's, for which ``[a b,R&B]`` is no list of two
names, ``null`` no name and ``1e3`` a number.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

# What Hydra and OmegaConf read as the word that it is, and whole numbers, which stay what they are.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*|0|[1-9][0-9]*")
_NO_WORDS = ("null", "true", "false", "nan", "inf")


def quoted_override(key: str, value: str | Sequence[str]) -> str:
    """``key=value`` of a text or of a list of texts, quoted for Hydra and then for the shell."""
    typed = _word(value) if isinstance(value, str) else f"[{','.join(map(_word, value))}]"
    return shlex.quote(f"{key}={typed}")


def _word(text: str) -> str:
    """A text as Hydra's grammar takes it: in double quotes unless it is a plain word."""
    if _PLAIN.fullmatch(text) and text.lower() not in _NO_WORDS:
        return text
    # Backslashes count where a quotation mark or the end follows, and `${` would be looked up.
    text = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), text)
    return '"' + re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + r"\${", text) + '"'
