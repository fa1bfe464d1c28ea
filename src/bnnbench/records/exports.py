"""What the export of a run's network left beside its result: ``packed.json``."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from bnnbench.records.schema import Export
from bnnbench.records.store import read_result_file, write_json

RECORD, RESULT = "packed.json", "result.json"
ABOVE = 2  # folders from a checkpoint up to its run's


def record_export(file: Path, checkpoint: Path, fingerprint: str, work: str, half: bool) -> bool:
    """Write ``packed.json`` beside the result of the run that ``checkpoint`` is of.

    Args:
        file: the packed file.
        checkpoint: what was exported.
        fingerprint: of the run.
        work: as ``packing.work.work_of`` names it.
        half: whether layers in full precision were stored in 16 bits.

    Returns:
        Whether there is such a run; what lies in a folder of another one gets no record.
    """
    folder = next(
        (f for f in checkpoint.absolute().parents[:ABOVE] if (f / RESULT).is_file()), None
    )
    if folder is None or read_result_file(folder / RESULT)["fingerprint"] != fingerprint:
        return False
    content = file.read_bytes()
    made = Export(
        bytes=len(content),
        header_bytes=8 + struct.unpack("<Q", content[:8])[0],
        sha256=hashlib.sha256(content).hexdigest(),
        work=work,
        half=half,
    )
    write_json(folder / RECORD, {"fingerprint": fingerprint, "export": made.model_dump()})
    return True


def with_export(result: dict[str, Any], path: Path) -> dict[str, Any]:
    """A result with its run's export; as it is where there is none, or another run's.

    Raises ValueError for a damaged record.
    """
    file = path.with_name(RECORD)
    if path.name != RESULT or not file.is_file():
        return result
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["fingerprint"] != result["fingerprint"]:
            return result
        export = Export.model_validate(record["export"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({error}): delete it and export again") from error
    return {**result, "export": export.model_dump()}
