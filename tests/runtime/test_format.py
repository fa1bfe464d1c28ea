"""A file that is not what was written is refused, whatever is wrong with it."""

from __future__ import annotations

import random
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


@pytest.fixture
def data() -> bytes:
    return encoded(DOCUMENT, TENSORS)


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


def test_a_thousand_mutated_files(data, tmp_path):
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


def test_every_bit_of_the_file(data):
    for place in range(len(data)):
        bad = bytearray(data)
        bad[place] ^= 1 << (place % 8)
        with pytest.raises(BadPackedFile):
            decoded(bytes(bad), "bad")


def test_a_thousand_class_names_are_no_part_of_the_header(tmp_path):
    names = [f"great white shark, white shark, the {n}th: \u00e9" for n in range(1000)]
    data = encoded({**DOCUMENT, "classes": names}, TENSORS)
    file = tmp_path / "net.safetensors"
    file.write_bytes(data)
    assert header_bytes(file) < 4096
    document, tensors = decoded(data, "net")
    assert document["classes"] == names == load(file).class_names
    assert tensors.keys() == TENSORS.keys()
    for place in range(header_bytes(file), len(data), 97):
        bad = bytearray(data)
        bad[place] ^= 1
        with pytest.raises(BadPackedFile, match="is damaged"):
            decoded(bytes(bad), "bad")


def test_a_later_version(monkeypatch, tmp_path):
    monkeypatch.setattr(packed_format, "VERSION", 2)
    (tmp_path / "later.safetensors").write_bytes(encoded(DOCUMENT, TENSORS))
    monkeypatch.setattr(packed_format, "VERSION", 1)
    with pytest.raises(BadPackedFile, match="is of version 2, this bnnbench reads up to 1"):
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
