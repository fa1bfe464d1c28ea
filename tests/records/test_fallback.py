"""Which checkpoint a run goes on from: damage falls back, what is foreign is refused."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bnnbench.records.fallback import Start, keep_good, start_of, tidy
from bnnbench.records.signature import BadCheckpoint, Signature, sign

OWN = Signature("a", "f" * 64, None, {"seed": 0}, "sha256:aaaa", ["zero"], [0.5], [0.25])


def write(file: Path, epoch: int, value: float = 1.0, signature: Signature | None = OWN) -> None:
    """A checkpoint after ``epoch`` (from 0), of ten steps each."""
    content: dict[str, Any] = {"state_dict": {"net.weight": torch.full((5000,), value)}}
    content |= {"epoch": epoch, "global_step": 10 * (epoch + 1), "optimizer_states": []}
    sign(content, signature)
    file.parent.mkdir(exist_ok=True)
    torch.save(content, file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "checkpoints" / "previous.ckpt", 3)
    write(tmp_path / "checkpoints" / "last.ckpt", 4)
    return tmp_path


def files(folder: Path) -> dict[str, int]:
    """Size of each checkpoint in a run's folder."""
    return {path.name: path.stat().st_size for path in (folder / "checkpoints").iterdir()}


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-700])


def rot(file: Path) -> None:
    content = bytearray(file.read_bytes())
    at = content.find(b"\x00\x00\x80?" * 20)  # among the weights
    content[at + 2] ^= 1
    file.write_bytes(content)


def no_number(file: Path) -> None:
    write(file, 4, float("nan"))


DAMAGES: list[tuple[Callable[[Path], Any], str]] = [
    (truncate, "cannot be read as a checkpoint"),
    (rot, "cannot be read|is damaged: 1 parts"),
    (no_number, r"state_dict/net\.weight holds values that are no finite numbers"),
    (lambda file: file.write_bytes(file.read_bytes()[:9000]), "cannot be read as a checkpoint"),
    (lambda file: file.write_bytes(file.read_bytes()[:1000]), "cannot be read as a checkpoint"),
    (lambda file: file.write_bytes(file.read_bytes()[:300]), "cannot be read as a checkpoint"),
    (lambda file: file.write_bytes(file.read_bytes()[:9000] + bytes(9000)), "cannot be read as"),
    (lambda file: file.write_bytes(b""), "cannot be read as a checkpoint"),
    (lambda file: file.write_text("a page of a proxy"), "cannot be read as a checkpoint"),
    (lambda file: torch.save([1], file), "holds no state_dict"),
]


def test_a_whole_one_is_gone_on_from_without_a_word(folder: Path) -> None:
    last = folder / "checkpoints" / "last.ckpt"
    assert start_of(folder, OWN) == (Start(last, 50, 5), [])
    assert start_of(folder / "nothing", OWN) == (Start(), [])


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_one_gives_way_to_the_one_before(
    folder: Path, damage: Callable[[Path], Any], reason: str
) -> None:
    last = folder / "checkpoints" / "last.ckpt"
    damage(last)
    start, (line,) = start_of(folder, OWN)
    assert start == Start(last, 40, 4)
    pattern = rf"{last}.*({reason}).*: the checkpoint before it is taken"
    assert "\n" not in line
    with pytest.raises(ValueError, match=pattern):
        raise ValueError(line)
    assert files(folder).keys() == {"last.ckpt", "damaged_last.ckpt"}
    assert start_of(folder, OWN) == (Start(last, 40, 4), [])


def test_two_damaged_ones_give_way_to_the_beginning(folder: Path) -> None:
    for name in ("last", "previous"):
        truncate(folder / "checkpoints" / f"{name}.ckpt")
    start, lines = start_of(folder, OWN)
    assert start == Start()
    assert [line.partition(" ")[0].rpartition("/")[2] for line in lines] == [
        "last.ckpt",
        "previous.ckpt",
    ]
    assert lines[1].endswith(": training starts from the beginning")
    assert files(folder).keys() == {"damaged_last.ckpt", "damaged_previous.ckpt"}


def test_a_death_before_the_new_one_was_in_place_is_none(folder: Path) -> None:
    last = folder / "checkpoints" / "last.ckpt"
    last.unlink()
    assert start_of(folder, OWN) == (Start(last, 40, 4), [])


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        (replace(OWN, fingerprint="0" * 64, config={"seed": 1}), "belongs to another run.*seed=1"),
        (replace(OWN, stage="two"), "belongs to another run"),
        (replace(OWN, data_stamp="sha256:bbbb"), "was trained on other data"),
        (None, "does not say which run"),
    ],
)
def test_a_foreign_one_is_refused_and_stays(
    folder: Path, signature: Signature | None, message: str
) -> None:
    write(folder / "checkpoints" / "last.ckpt", 4, signature=signature)
    before = files(folder)
    with pytest.raises(BadCheckpoint, match=message):
        start_of(folder, OWN)
    assert files(folder) == before


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, os.strerror(errno.EIO)),
        OSError(errno.ESTALE, os.strerror(errno.ESTALE)),
        PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=repr,
)
def test_a_disk_or_a_memory_that_fails_is_no_damage(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fail)
    before = files(folder)
    with pytest.raises(BadCheckpoint, match=r"last\.ckpt cannot be read: "):
        start_of(folder, OWN)
    assert files(folder) == before


@pytest.mark.parametrize(("steps", "kept"), [(55, 4), (50, 4), (49, 3), (40, 3), (-1, 3)])
def test_the_last_that_is_known_to_be_good_is_kept(folder: Path, steps: int, kept: int) -> None:
    assert keep_good(folder / "checkpoints", steps) == kept
    last = folder / "checkpoints" / "last.ckpt"
    assert start_of(folder, OWN)[0] == Start(last, 10 * (kept + 1), kept + 1)


def test_of_a_first_one_that_is_not_good_nothing_is_kept(tmp_path: Path) -> None:
    last = tmp_path / "checkpoints" / "last.ckpt"
    write(last, 0)
    assert keep_good(last.parent, 10) == 0
    assert keep_good(last.parent, 9) is None
    assert not last.exists()
    assert keep_good(last.parent, 9) is None


def test_failures_one_after_another_do_not_eat_what_was_trained(folder: Path) -> None:
    """Of the one that took another's place it is known that training went on from it."""
    for _ in range(3):
        assert keep_good(folder / "checkpoints", -1) == 3
    assert files(folder).keys() == {"last.ckpt"}


def test_a_finished_run_keeps_one(folder: Path) -> None:
    truncate(folder / "checkpoints" / "last.ckpt")
    start_of(folder, OWN)
    write(folder / "checkpoints" / "previous.ckpt", 3)
    write(folder / "checkpoints" / "best.ckpt", 2)
    tidy(folder)
    assert files(folder).keys() == {"last.ckpt", "best.ckpt"}


def test_another_version_of_torch_goes_on_with_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start_of(folder, OWN)[1] == []
    monkeypatch.setattr(torch, "__version__", "1.0.7")
    start, (warning,) = start_of(folder, OWN)
    assert start.epochs == 5
    assert (
        f"last.ckpt was written with torch {written_with(folder)} and goes on with 1.0.7" in warning
    )


def written_with(folder: Path) -> str:
    file = folder / "checkpoints" / "last.ckpt"
    return torch.load(file, weights_only=True)["bnnbench"]["torch"]


def test_a_checkpoint_that_does_not_say_its_torch_goes_on_silently(tmp_path: Path) -> None:
    file = tmp_path / "checkpoints" / "last.ckpt"
    write(file, 4)
    content = torch.load(file, weights_only=True)
    del content["bnnbench"]["torch"]
    torch.save(content, file)
    assert start_of(tmp_path, OWN) == (Start(file, 50, 5), [])
