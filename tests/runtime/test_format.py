"""A file that is not what was written is refused, whatever is wrong with it."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch

from bnnbench.runtime import BadPackedFile, load
from bnnbench.runtime import format as packed_format
from bnnbench.runtime.check import check_images
from bnnbench.runtime.format import decoded, encoded, header_bytes, is_packed

DOCUMENT = {
    "name": "small",
    "task": "classification",
    "classes": ["a", "b"],
    "mean": [],
    "std": [],
    "image": [4],
    "nodes": [["packed_linear", ["%0", "$0", None, 1.0, 0.0, "$2", None]]],
    "constants": [["floats", [1]], ["floats", [2, 1]], ["signs", [2, 4], 1]],
    "outputs": [1],
    "layers": ["fc"],
}
TENSORS = {"bits": torch.tensor([0b01101001], dtype=torch.uint8), "floats": torch.ones(3)}


def detector() -> tuple[dict, dict[str, torch.Tensor]]:
    """A document with two outputs and all four tensors, as an SSD's has."""
    nodes = [
        ["conv2d", ["%0", "$0", "$1"]],
        ["reshape", ["%1", [-1, 4, 2]]],
        ["packed_conv", ["%1", "$2", None, 1.0, 0.0, "$4", None, [1, 1], [0, 0], [1, 1], 1, 0.0]],
        ["reshape", ["%3", [-1, 4, 2]]],
        ["index_select", ["%4", 1, "$5"]],
    ]
    constants = [
        ["halves", [4, 3, 1, 1]], ["floats", [4]], ["floats", [1]],
        ["floats", [4, 1, 1, 1]], ["signs", [4, 4, 1, 1], 3], ["integers", [4]],
    ]  # fmt: skip
    boxes = {"size": 2, "rules": {}, "sides": [2], "steps": None}
    document = DOCUMENT | {"task": "detection", "image": [3, 1, 2], "layers": ["head"]}
    document |= {"nodes": nodes, "constants": constants, "outputs": [2, 5], "boxes": boxes}
    tensors = {
        "bits": torch.tensor([0b01101001, 0b11110000], dtype=torch.uint8),
        "floats": torch.arange(9.0),
        "halves": torch.ones(12, dtype=torch.float16),
        "integers": torch.tensor([3, 2, 1, 0]),
    }
    return document, tensors


@pytest.fixture
def data() -> bytes:
    return encoded(DOCUMENT, TENSORS)


@pytest.fixture(params=["classifier", "detector", "deflated"])
def any_data(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Files of each kind that there is."""
    if request.param == "deflated":
        monkeypatch.setattr(packed_format, "LARGEST_PLAIN", 0)
    return encoded(*((DOCUMENT, TENSORS) if request.param == "classifier" else detector()))


@pytest.fixture
def file(data, tmp_path) -> Path:
    path = tmp_path / "net.safetensors"
    path.write_bytes(data)
    return path


def test_a_whole_file_is_the_network(file):
    net = load(file)
    x = torch.tensor([[2.0, -1.0, 0.5, 3.0]])  # codes + - + + from 1 on: + - - +
    assert is_packed(file)
    assert net(x).tolist() == [[4.0, -4.0]]


def test_a_network_that_computes_something_else_here_is_refused_where_asked(tmp_path):
    path = tmp_path / "net.safetensors"
    known = load_of(path, DOCUMENT).interpreted(check_images([4], 1))[0].tolist()
    assert load_of(path, {**DOCUMENT, "check": {"seed": 0, "outputs": known}}, verify=True)
    other = {**DOCUMENT, "check": {"seed": 0, "outputs": [known[0], known[1] + 2]}}
    assert load_of(path, other).verify() > 0.1
    with pytest.raises(BadPackedFile, match="computes something else here than where"):
        load(path, verify=True)


def load_of(path, document, **options):
    path.write_bytes(encoded(document, TENSORS))
    return load(path, **options)


def test_a_thousand_mutated_files(any_data, tmp_path):
    data = any_data
    draw, path = random.Random(0), tmp_path / "bad.safetensors"
    for number in range(1000):
        bad = bytearray(data)
        kind = number % 4
        if kind == 0:  # a bit anywhere
            bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del bad[draw.randrange(len(bad)) :]
        elif kind == 2:
            start = draw.randrange(len(bad))
            bad[start : start + 16] = draw.randbytes(draw.randrange(40))
        else:
            bad += draw.randbytes(1 + draw.randrange(40))
        if bytes(bad) == data:
            continue
        path.write_bytes(bytes(bad))
        with pytest.raises(BadPackedFile):
            load(path)


def test_every_byte_of_the_file(any_data):
    data = any_data
    for place in range(len(data)):
        bad = bytearray(data)
        bad[place] ^= 1 << (place % 8)
        with pytest.raises(BadPackedFile):
            decoded(bytes(bad), "bad")


def test_a_file_that_is_cut_at_a_tensor(any_data):
    """Before, at and behind where each begins and ends, and where the header does."""
    start = 8 + struct.unpack("<Q", any_data[:8])[0]
    header = json.loads(any_data[8:start])
    header.pop("__metadata__")
    ends = {end for entry in header.values() for end in entry["data_offsets"]}
    places = {0, 7, 8, start} | {start + end for end in ends}
    for place in {place + step for place in places for step in (-1, 0, 1)}:
        if 0 <= place < len(any_data):
            with pytest.raises(BadPackedFile):
                decoded(any_data[:place], "cut")


def test_tensors_that_change_places(any_data):
    """Every byte is there, and the header is as it was."""
    start = 8 + struct.unpack("<Q", any_data[:8])[0]
    turned = any_data[:start] + any_data[start:][::-1]
    with pytest.raises(BadPackedFile, match="are not what was written"):
        decoded(turned, "turned")


def test_a_detector_is_two_outputs(tmp_path):
    document, tensors = detector()
    (tmp_path / "net.safetensors").write_bytes(encoded(document, tensors))
    logits, offsets = load(tmp_path / "net.safetensors")(torch.ones(1, 3, 1, 2))
    assert (logits.shape, offsets.shape) == ((1, 4, 2), (1, 4, 2))


def test_a_large_document_is_deflated_and_read_again(tmp_path):
    """The header keeps to 32 kB."""
    names = [f"class number {n}" for n in range(9000)]
    (tmp_path / "net.safetensors").write_bytes(encoded(DOCUMENT | {"classes": names}, TENSORS))
    assert header_bytes(tmp_path / "net.safetensors") < 32768
    assert load(tmp_path / "net.safetensors").class_names == names


def test_a_document_that_inflates_without_end_is_refused(monkeypatch, data):
    monkeypatch.setattr(packed_format, "LARGEST_PLAIN", 0)
    bomb = encoded(DOCUMENT | {"classes": ["a" * 100_000]}, TENSORS)
    monkeypatch.setattr(packed_format, "LARGEST_HEADER", 50_000)
    with pytest.raises(BadPackedFile, match="is cut off, or larger than any"):
        decoded(bomb, "bomb")


def test_an_empty_file_and_a_folder(tmp_path):
    (tmp_path / "empty.safetensors").touch()
    for path in (tmp_path / "empty.safetensors", tmp_path):
        assert not is_packed(path)
        with pytest.raises(BadPackedFile):
            load(path)


def test_a_later_version(monkeypatch, tmp_path):
    monkeypatch.setattr(packed_format, "PLAIN", 3)
    (tmp_path / "later.safetensors").write_bytes(encoded(DOCUMENT, TENSORS))
    with pytest.raises(BadPackedFile, match="is of version 3, this bnnbench reads up to 2"):
        load(tmp_path / "later.safetensors")


def test_foreign_files(tmp_path):
    with pytest.raises(BadPackedFile, match="there is no packed file"):
        load(tmp_path / "none.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"w": torch.ones(2)}, foreign)
    assert not is_packed(foreign)
    with pytest.raises(BadPackedFile, match="is no packed network"):
        load(foreign)


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": [["os.system", ["'ls"]]]},
        {"nodes": [["relu", ["%1"]]]},
        {"nodes": [["relu", ["%7"]]]},
        {"constants": [["floats", [9]]]},
        {"outputs": ["x"]},
        {"nodes": 3},
    ],
)
def test_a_document_that_makes_no_sense(change, tmp_path):
    """Signed by whoever wrote it: nothing of it is looked up but the operations that are known."""
    path = tmp_path / "odd.safetensors"
    path.write_bytes(encoded({**DOCUMENT, **change}, TENSORS))
    with pytest.raises(BadPackedFile, match="holds no network that can be built"):
        load(path)
