"""What loggers have written, read with the readers of their own packages."""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768


@dataclass
class Written:
    """One offline run of wandb's: what its server would be given.

    Attributes:
        run: the record of the run itself: id, group, job type, tags.
        history: rows of metrics.
        summary: the last word of each key.
        axes: step metric by metric, ``*`` among them.
        exit_code: how it ended; None where it did not.
    """

    run: Any
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None
    config: dict[str, Any] = field(default_factory=dict)


def wandb_runs(folder: Path) -> list[Written]:
    """The offline runs below a folder, in the order of time.

    wandb's own process may still write when a run has ended: its last record is waited for.
    """
    end = time.monotonic() + 60
    while True:
        files = sorted(folder.rglob("offline-run-*/*.wandb"))
        found = [read_wandb(file) for file in files]
        if all(each.exit_code is not None for each in found):
            return found
        assert time.monotonic() < end, "a run has no end"
        time.sleep(0.1)


def read_wandb(file: Path) -> Written:
    from wandb.proto import wandb_internal_pb2

    found = Written(None)
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= {_key(i): json.loads(i.value_json) for i in record.run.config.update}
        elif kind == "config":
            found.config |= {_key(i): json.loads(i.value_json) for i in record.config.update}
        elif kind == "history":
            found.history.append({_key(i): json.loads(i.value_json) for i in record.history.item})
        elif kind == "summary":
            found.summary |= {_key(i): json.loads(i.value_json) for i in record.summary.update}
        elif kind == "metric":
            name = record.metric.name or record.metric.glob_name
            found.axes[name] = record.metric.step_metric
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def log_records(content: bytes) -> Iterator[bytes]:
    """The records of a file of wandb's, which is a log of LevelDB's behind a header of 7 bytes.

    A block of 32 KiB holds chunks: a CRC (4 bytes), a length (2), a kind (whole 1, first 2,
    middle 3, last 4), the content. wandb's package has messages for these, and no reader any more.
    """
    assert content[:4] == b":W&B"
    place, record = 7, b""
    while len(content) - place >= 7:
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        crc, length, kind = struct.unpack_from("<IHB", content, place)
        data = content[place + 7 : place + 7 + length]
        if len(data) < length:  # not whole yet
            return
        assert crc == zlib.crc32(bytes([kind]) + data), "damaged"
        place += 7 + length
        record = data if kind in (1, 2) else record + data
        if kind in (1, 4):
            yield record


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def read_tensorboard(folder: Path) -> Any:
    """All of the event files of a run, as TensorBoard would show them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything = {"scalars": 0, "histograms": 0, "images": 0, "tensors": 0}
    accumulator = EventAccumulator(str(folder), size_guidance=everything)
    accumulator.Reload()
    return accumulator
