"""The packed file: one safetensors file whose every bit is under a checksum.

It holds up to four flat tensors (``bits``: eight signs a byte, ``floats``, ``halves`` and
``integers``) and a document, JSON in the header: the operations of the network and where each of
their constants lies, class names, normalisation, check values, provenance. The document has a
SHA-256 of each tensor, and the header one of itself, computed with zeros in its place. A document
that would make the header larger than 32 kB is deflated, in base 64: version 2.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

PLAIN, DEFLATED = 1, 2
VERSION = DEFLATED  # the latest that is read
LARGEST_PLAIN = 31_000  # bytes of a document in the header, as that writes it
FORMAT = "bnnbench-packed"
TENSORS = {
    "bits": torch.uint8,
    "floats": torch.float32,
    "halves": torch.float16,
    "integers": torch.int64,
}
LARGEST_HEADER = 1 << 25
_ZEROS = "0" * 64


class BadPackedFile(ValueError):
    """A file that is no packed network, or no longer the one that was written."""


def encoded(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """The content of a packed file."""
    kept = {name: tensors[name].contiguous() for name in TENSORS if name in tensors}
    full = {**document, "tensors": {name: _digest(tensor) for name, tensor in kept.items()}}
    version, text = PLAIN, json.dumps(full, separators=(",", ":"), ensure_ascii=True)
    if len(json.dumps(text)) > LARGEST_PLAIN:
        version, text = DEFLATED, base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    metadata = {"format": FORMAT, "version": str(version), "sha256": _ZEROS, "document": text}
    data = safetensors.torch.save(dict(kept), metadata)
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = data[:end]
    digest = hashlib.sha256(header).hexdigest()
    place = header.index(b'"' + _ZEROS.encode() + b'"') + 1
    return header[:place] + digest.encode() + header[place + 64 :] + data[end:]


def write(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def is_packed(path: Path | str) -> bool:
    """Whether a file begins as a packed one does; whether it is whole, ``read`` finds out."""
    try:
        with Path(path).expanduser().open("rb") as file:
            start = file.read(8)
            if len(start) < 8:
                return False
            (length,) = struct.unpack("<Q", start)
            head = file.read(min(length, LARGEST_HEADER))
    except OSError:
        return False
    return head[:1] == b"{" and FORMAT.encode() in head


def read(path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Document and tensors of a packed file.

    Raises:
        BadPackedFile: no such file, a foreign or damaged one, or one of a later version.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise BadPackedFile(f"there is no packed file at {file}")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BadPackedFile(f"{file} cannot be read: {error}") from error
    return decoded(data, str(file))


def decoded(data: bytes, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The same of a file's content; ``name`` is for the message."""
    metadata = _metadata(data, name)
    version = metadata.get("version", "")
    if metadata.get("format") != FORMAT or not version.isdigit():
        raise BadPackedFile(f"{name} is no packed network: write one with bnnbench export")
    if int(version) > VERSION:
        raise BadPackedFile(
            f"{name} is of version {version}, this bnnbench reads up to {VERSION}: update it"
        )
    _check_header(data, metadata, name)
    try:
        document = json.loads(_inflated(metadata["document"], int(version)))
        tensors = safetensors.torch.load(data)
    except Exception as error:
        raise BadPackedFile(f"{name} is damaged: {error}; copy or export it again") from error
    digests = document.pop("tensors", None)
    if not isinstance(digests, dict) or digests.keys() != tensors.keys():
        raise BadPackedFile(f"{name} is damaged: tensors are missing; copy or export it again")
    for key, tensor in tensors.items():
        if _digest(tensor) != digests[key] or tensor.dtype != TENSORS.get(key) or tensor.dim() != 1:
            raise BadPackedFile(
                f"{name} is damaged: its {key} are not what was written; copy or export it again"
            )
    return document, tensors


def header_bytes(path: Path | str) -> int:
    """Bytes before the first tensor."""
    with Path(path).open("rb") as file:
        return 8 + struct.unpack("<Q", file.read(8))[0]


def _metadata(data: bytes, name: str) -> dict[str, str]:
    foreign = BadPackedFile(
        f"{name} is no packed network, or a damaged one: its header is unreadable"
    )
    if len(data) < 8:
        raise foreign
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(len(data) - 8, LARGEST_HEADER):
        raise foreign
    try:
        header = json.loads(data[8 : 8 + length].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise foreign from error
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise BadPackedFile(f"{name} is no packed network: write one with bnnbench export")
    return metadata


def _check_header(data: bytes, metadata: Mapping[str, str], name: str) -> None:
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header, digest = data[:end], metadata.get("sha256", "")
    place = header.find(b'"' + digest.encode() + b'"') + 1
    blank = header[:place] + _ZEROS.encode() + header[place + 64 :]
    if len(digest) != 64 or not place or hashlib.sha256(blank).hexdigest() != digest:
        raise BadPackedFile(
            f"{name} is damaged: its header is not what was written; copy or export it again"
        )


def _inflated(text: str, version: int) -> str | bytes:
    if version < DEFLATED:
        return text
    reader = zlib.decompressobj()
    found = reader.decompress(base64.b64decode(text, validate=True), LARGEST_HEADER)
    if not reader.eof:
        raise ValueError("its document is cut off, or larger than any")
    return found


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().data).hexdigest()
