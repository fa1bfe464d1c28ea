"""Reading a checkpoint's bytes, and what to say of a file that is none.

Files are written by ``torch.save`` or in the safetensors format, told apart by their first bytes.
Nothing that a file holds is run.
"""

from __future__ import annotations

import re
from pathlib import Path
from pickle import UnpicklingError
from zipfile import ZipFile, is_zipfile

import torch
from safetensors.torch import load_file

from bnnbench.records.archives import check_archive, check_content

LONGEST_HEADER = 10**8  # bytes, of the safetensors format
ANEW = "take another file"
# How files begin that are downloaded in the place of a checkpoint: what they are, what to do.
OTHERS: tuple[tuple[str, tuple[bytes, ...], str], ...] = (
    (
        "it is a web page",
        (b"<!doctype html", b"<html"),
        "download the file itself, not the page that shows it",
    ),
    (
        "it is a pointer of Git LFS",
        (b"version https://git-lfs",),
        "fetch the file itself with git lfs pull",
    ),
    (
        "it is a compressed archive",
        (b"\x1f\x8b", b"\xfd7zxz\x00", b"bzh", b"7z\xbc\xaf", b"rar!"),
        "unpack it, and name the checkpoint that it holds",
    ),
)
CUT = re.compile(r"central directory|not a ZIP|EOF|Ran out of input|invalid header|incomplete")
CLASS = re.compile(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)")


def read_content(path: Path) -> object:
    """What a file holds, on the CPU. Raises whatever its reader does; ``told`` says it in words."""
    if is_safetensors(path):
        content: object = load_file(path, device="cpu")
    else:
        check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    check_content(content, path.stat().st_size)
    return content


def is_safetensors(path: Path) -> bool:
    """Whether a file begins with the length of a header and an opening brace."""
    with path.open("rb") as file:
        size, brace = int.from_bytes(file.read(8), "little"), file.read(1)
    return brace == b"{" and size < LONGEST_HEADER


def told(path: Path, error: Exception) -> str:
    """What is wrong with a file that could not be read, and after a semicolon what to do."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return f"it is empty; {ANEW}"
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    for what, beginnings, remedy in OTHERS:
        if start.startswith(beginnings):
            return f"{what}; {remedy}"
    if head.startswith(b"PK") and is_zipfile(path) and _lacks(path, "data.pkl"):
        return "it is an archive of other files; unpack it, and name the checkpoint that it holds"
    if _is_text(head):
        return f"it is a text file; {ANEW}"
    line = " ".join(str(error).split())
    if (named := CLASS.search(line)) is not None:
        return (
            f"it holds objects of {named[1]}, which are not loaded because that runs code; where "
            "you trust it, save its weights alone, in Python: torch.save(torch.load(<file>, "
            "weights_only=False)['state_dict'], <new file>), or .state_dict() of a whole model"
        )
    if CUT.search(line) or isinstance(error, EOFError | OSError):
        return f"it is cut off or damaged; fetch it again, or {ANEW}"
    if isinstance(error, UnpicklingError):  # torch's says how to switch the check off
        return f"it is damaged, or no checkpoint; {ANEW}"
    return f"{line.split('. ')[0]}; {ANEW}"


def _lacks(path: Path, name: str) -> bool:
    with ZipFile(path) as archive:
        return all(entry.rpartition("/")[2] != name for entry in archive.namelist())


def _is_text(head: bytes) -> bool:
    """Whether a beginning is printable UTF-8; the last character may be cut."""
    text = head.decode("utf-8", errors="ignore")
    whole = len(text.encode()) >= len(head) - 3
    return whole and all(c.isprintable() or c in "\r\n\t" for c in text)
