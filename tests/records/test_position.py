"""What a run says of itself while it trains."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from bnnbench.records.position import Position, read_position, write_position

HALFWAY = Position(
    epoch=3,
    max_epochs=10,
    batch=14,
    batches=22,
    metrics={"test/acc": 0.5, "test/odd": None},
    running={"loss": 1.25},
    stage="stage1_first",
    resumed=2,
    epoch_s=2.5,
    left_s=16.0,
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_position(tmp_path) is None
    write_position(tmp_path, HALFWAY)
    assert read_position(tmp_path) == HALFWAY
    assert [file.name for file in tmp_path.iterdir()] == ["progress.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "null",
        '"at epoch 3"',
        '{"epoch": "three"}',
        '{"epoch": -1}',
        '{"epoch": NaN}',
        '{"epoch": true}',
        '{"left_s": "soon"}',
        '{"metrics": {"test/acc": "good"}}',
        '{"metrics": [0.5]}',
    ],
)
def test_what_is_no_position_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "progress.json").write_text(text)
    assert read_position(tmp_path) is None


def test_keys_of_other_versions_are_no_matter(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_text('{"epoch": 1, "max_epochs": 2, "colour": "red"}')
    assert read_position(tmp_path) == Position(epoch=1, max_epochs=2)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    seen: list[str] = []
    stop = threading.Event()
    write_position(tmp_path, HALFWAY)

    def read() -> None:
        while not stop.is_set():
            seen.append((tmp_path / "progress.json").read_text())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for epoch in range(300):
            many = {f"test/ap/{number}": 0.5 for number in range(200)}
            write_position(tmp_path, Position(epoch=epoch, metrics=many))
    finally:
        stop.set()
        reader.join()
    assert len(seen) > 10
    assert all(isinstance(json.loads(text)["epoch"], int) for text in seen)


def test_where_it_is() -> None:
    assert (HALFWAY.current, HALFWAY.fraction) == (4, 14 / 22)
    assert Position(epoch=10, max_epochs=10).current == 10
    assert Position(epoch=10).current == 11
    assert Position(batch=30, batches=20).fraction == 1.0
    assert asdict(Position())["left_s"] is None
