"""The packed networks that come with the package are what their results say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import bnnbench
from bnnbench.data.known import SOURCES
from bnnbench.data.sources import read
from bnnbench.packing.work import work_of
from bnnbench.paths import zoo_dir
from bnnbench.records.schema import check_result
from bnnbench.runs.robustness import evaluated
from bnnbench.runs.zoo import KNOWN, entry, load_pretrained, name_of, pretrained
from bnnbench.runtime import format, report
from bnnbench.runtime.check import check_images
from bnnbench.runtime.graph import PackedNetwork

NAMES = pretrained()
# Sums in another order move a few activations, and then an image, across a threshold.
SAME, CLOSE = 95, 1e-3  # images at least, of their largest logit


@pytest.fixture(scope="module")
def cifar10(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with CIFAR-10's real test images, a mosaic of tiles in the shared folder."""
    with Image.open(shared_data / "cifar10" / "test.webp") as file:
        mosaic = np.asarray(file.convert("RGB"))
    tiles = mosaic.reshape(100, 32, 100, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
    labels = np.load(shared_data / "cifar10" / "labels.npz")
    parts = {"test_images": tiles, "test_labels": labels["test"], "classes": labels["classes"]}
    few = {"train_images": tiles[:10], "train_labels": labels["test"][:10]}  # nothing is trained
    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "cifar10.npz", **parts, **few)
    return folder


def test_there_are_entries_with_all_their_files() -> None:
    assert {f"resnet20_{q}_digits" for q in ("adabin", "birealnet", "reactnet", "xnor")} <= {*NAMES}
    files = {file.name for file in zoo_dir().iterdir()} - {"README.md"}
    made = [entry(name) for name in NAMES]
    assert files == {path.name for e in made for path in (e.file, e.record, e.answer)}


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_the_file_that_its_result_speaks_of(name: str) -> None:
    found = entry(name)
    result = check_result(json.loads(found.record.read_text()), name)
    document, _ = format.read(found.file)
    assert result["export"]["bytes"] == found.file.stat().st_size
    assert result["export"]["work"] == work_of(document)
    assert document["run"]["fingerprint"] == result["fingerprint"]
    export, counted = result["export"], result["operations"]
    assert export["header_bytes"] <= 32768
    tensors = export["bytes"] - export["header_bytes"]
    assert tensors <= 1.05 * (counted["packed_bytes"] + counted["scale_bytes"])
    assert result["git"]["dirty"] is False
    assert result["ended"] is None
    assert name == name_of(result)
    assert document["half"] is (result["choices"]["quantizer"] == "fp32")


@pytest.mark.parametrize("name", NAMES)
def test_the_known_answer_of_a_hundred_images(name: str) -> None:
    net = load_pretrained(name).net
    assert isinstance(net, PackedNetwork)
    logits = net(check_images(net.image, KNOWN))
    known = safetensors.torch.load_file(entry(name).answer)["logits"]
    assert known.shape == logits.shape == (KNOWN, len(net.class_names))
    assert len(known.unique(dim=0)) == KNOWN  # another answer for each image
    differences = (logits - known).abs().amax(1) / known.abs().amax(1)
    assert int((differences < CLOSE).sum()) >= SAME


@pytest.mark.parametrize("name", NAMES)
def test_its_accuracy_is_that_of_its_result(name: str, request: pytest.FixtureRequest) -> None:
    net, result = load_pretrained(name), entry(name).result
    dataset = result["choices"]["dataset"]
    embedded = not SOURCES[dataset].torchvision
    folder = Path() if embedded else request.getfixturevalue("cifar10")
    *_, images, labels = read(dataset, folder)
    with torch.inference_mode():
        found = torch.cat([net(part).argmax(1) for part in images.split(500)])
    expected = round(result["metrics"]["last"]["test/acc"] * len(labels))
    allowed = max(1, 5 * len(labels) // 10_000)  # 0.05 points, by ties; of a small set one image
    assert abs(int((found == labels).sum()) - expected) <= allowed


def test_a_twin_is_called_by_its_structure() -> None:
    choices = {"backbone": "resnet20", "quantizer": "xnor", "dataset": "cifar10", "loss": "task"}
    result = {"choices": choices, "structure": {"shortcut": "block", "nonlinearity": "hardtanh"}}
    assert name_of(result) == "resnet20_xnor_cifar10"
    twin = result | {"choices": choices | {"quantizer": "fp32"}}
    assert name_of(twin) == "resnet20_fp32_block_hardtanh_cifar10"


def test_a_name_that_does_not_exist_says_which_do() -> None:
    with pytest.raises(ValueError, match="did you mean resnet20_adabin_digits") as told:
        load_pretrained("resnet20_adabin_digit")
    assert all(name in str(told.value) for name in NAMES)


def test_it_is_public() -> None:
    assert bnnbench.load_pretrained is load_pretrained
    assert "load_pretrained" in bnnbench.__all__


def test_its_layers_say_their_path() -> None:
    paths = report(load_pretrained("resnet20_xnor_digits").net)
    assert len(paths) == 18
    assert all(each.path.startswith(("kernel: ", "float: ")) for each in paths)


def test_corruptions_do_the_more_damage_to_full_precision_the_severer_they_are(
    cifar10: Path,
) -> None:
    """Those whose constants grow with severity; the authors' glass blur and snow do not."""
    names = ["gaussian_noise", "defocus_blur", "fog", "contrast", "pixelate"]
    twin = str(entry("resnet20_fp32_conv_relu_cifar10").file)
    (found,) = evaluated([twin], "cifar10c", cifar10, 200, names, (1, 3, 5))["networks"]
    for name in names:
        mild, middle, severe = found["accuracy"][name]
        assert found["clean"] + 0.02 > mild > middle > severe, name
