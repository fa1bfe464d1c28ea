"""Reading sets from the data folder: forms, damage, absence, downloads that break off."""

from __future__ import annotations

import shutil
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from bnnbench.data import DatasetDamaged, DatasetMissing, sources


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_npz_and_torchvisions_layout_are_the_same(name, tmp_path, small, write_cifar):
    content = small(name)
    (tmp_path / "a").mkdir()
    np.savez(tmp_path / "a" / f"{name}.npz", **content)
    write_cifar(name, tmp_path / "b", content)
    one, other = sources.read(name, tmp_path / "a"), sources.read(name, tmp_path / "b")
    assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))
    assert [x.dtype for x in one] == [torch.uint8, torch.int64] * 2
    # as a person would look at it: the blue value of image 3, row 5, column 7
    assert one[0][3, 2, 5, 7] == content["train_images"][3, 5, 7, 2]


def test_fashion_mnist_in_torchvisions_layout(tmp_path, small, write_fashion):
    content = small("fashion_mnist")
    raw = write_fashion(tmp_path, content)
    images, labels, test_images, _ = sources.read("fashion_mnist", tmp_path)
    assert images.shape == (200, 1, 28, 28)
    assert torch.equal(images[:, 0], torch.from_numpy(content["train_images"][..., 0]))
    assert torch.equal(labels, torch.from_numpy(content["train_labels"]))
    assert len(test_images) == 100
    file = raw / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])  # a download that broke off
    with pytest.raises(DatasetDamaged, match="FashionMNIST is damaged or incomplete"):
        sources.read("fashion_mnist", tmp_path)


def test_the_npz_is_read_first(tmp_path, small, write_cifar):
    content = small("cifar10")
    write_cifar("cifar10", tmp_path, content)
    np.savez(tmp_path / "cifar10.npz", **content | {"train_labels": np.full(200, 7, np.uint8)})
    assert sources.read("cifar10", tmp_path)[1].unique().tolist() == [7]


DAMAGE = {
    "lacks test_labels": lambda c: c.pop("test_labels"),
    "train_images must be uint8": lambda c: c.update(train_images=c["train_images"] / 255),
    "test_images must be uint8 .N, 32": lambda c: c.update(test_images=c["test_images"][:, :28]),
    "found uint8 .200, 3, 32, 32.": lambda c: c.update(
        train_images=c["train_images"].transpose(0, 3, 1, 2)
    ),
    "found uint8 .0, 32": lambda c: c.update(
        train_images=c["train_images"][:0], train_labels=c["train_labels"][:0]
    ),
    "train_labels must be 200 integers, found int64 .199": lambda c: c.update(
        train_labels=c["train_labels"][1:]
    ),
    "integers, found float64": lambda c: c.update(train_labels=c["train_labels"] * 1.0),
    "must lie in 0 to 9, found 1 to 10": lambda c: c.update(train_labels=c["train_labels"] + 1),
    "found -1 to 8": lambda c: c.update(test_labels=c["test_labels"] - 1),
    "cannot be read": lambda c: c.update(test_labels=np.array([{}], dtype=object)),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_an_npz_of_another_content_names_file_and_reason(reason, tmp_path, small):
    content = small("cifar10")
    DAMAGE[reason](content)
    np.savez(tmp_path / "cifar10.npz", **content)
    with pytest.raises(DatasetDamaged, match=rf"cifar10\.npz.*{reason}"):
        sources.read("cifar10", tmp_path)


@pytest.mark.parametrize("kind", ["empty", "half", "flipped", "text", "npy", "folder"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_broken_npz_names_the_file(kind, save, tmp_path, small):
    file = tmp_path / "cifar10.npz"
    save(file, **small("cifar10"))
    whole = file.read_bytes()
    middle = len(whole) // 2
    if kind == "folder":
        file.unlink()
        file.mkdir()
    elif kind == "npy":
        with file.open("wb") as target:
            np.save(target, np.zeros(3))
    else:
        flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
        contents = {"empty": b"", "half": whole[:middle], "flipped": flipped, "text": b"not found"}
        file.write_bytes(contents[kind])
    with pytest.raises(DatasetDamaged, match=r"cifar10\.npz cannot be read"):
        sources.read("cifar10", tmp_path)


def test_a_folder_with_a_changed_or_missing_file_is_damaged(tmp_path, small, write_cifar):
    folder = write_cifar("cifar10", tmp_path, small("cifar10"))
    batch = folder / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-10])
    with pytest.raises(DatasetDamaged, match=r"cifar-10-batches-py is damaged.*delete it"):
        sources.read("cifar10", tmp_path)
    batch.unlink()
    sources.download("cifar10", tmp_path)  # nothing is replaced by itself
    with pytest.raises(DatasetDamaged, match="damaged or incomplete"):
        sources.read("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist"])
def test_an_absent_set_without_network_says_where_to_put_which_files(name, tmp_path, monkeypatch):
    def offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(DatasetMissing, match=f"{name} is not in") as caught:
        sources.download(name, tmp_path / "new")
    message = str(caught.value)
    for part in ("no route", f"{name}.npz", sources.SOURCES[name].folder):
        assert part in message
    for part in ("paths.data_dir=", "BNNBENCH_DATA", str(tmp_path)):
        assert part in message
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(DatasetMissing, match="BNNBENCH_DATA"):
        sources.read(name, tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetMissing, match=r"file/data.*Not a directory"):
        sources.download("cifar10", tmp_path / "file" / "data")


@pytest.fixture
def far_away(tmp_path, small, write_cifar, monkeypatch):
    """A set that torchvision "downloads": the list counts how often."""
    folder = write_cifar("cifar10", tmp_path / "server", small("cifar10"))
    calls: list[Path] = []

    def fetch(self: torchvision.datasets.CIFAR10) -> None:
        calls.append(Path(self.root))
        shutil.copytree(folder, Path(self.root) / folder.name)

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", fetch)
    return calls


def test_a_set_is_downloaded_once(tmp_path, far_away):
    sources.download("cifar10", tmp_path / "data")
    sources.download("cifar10", tmp_path / "data")
    assert len(far_away) == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar-10-batches-py"]
    assert len(sources.read("cifar10", tmp_path / "data")[0]) == 200


def test_a_download_that_breaks_off_leaves_nothing(tmp_path, far_away, monkeypatch):
    fetch = torchvision.datasets.CIFAR10.download

    def broken(self: torchvision.datasets.CIFAR10) -> None:
        fetch(self)
        raise ConnectionResetError("peer went away")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", broken)
    with pytest.raises(DatasetMissing, match="peer went away"):
        sources.download("cifar10", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_download_that_arrives_incomplete_is_not_taken(tmp_path, far_away, monkeypatch):
    fetch = torchvision.datasets.CIFAR10.download

    def incomplete(self: torchvision.datasets.CIFAR10) -> None:
        fetch(self)
        (Path(self.root) / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"half")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", incomplete)
    with pytest.raises(DatasetMissing, match="corrupted"):
        sources.download("cifar10", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_two_processes_may_download_at_once(tmp_path, far_away, monkeypatch):
    fetch = torchvision.datasets.CIFAR10.download

    def raced(self: torchvision.datasets.CIFAR10) -> None:
        fetch(self)
        shutil.copytree(
            Path(self.root) / "cifar-10-batches-py", tmp_path / "data" / "cifar-10-batches-py"
        )

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", raced)
    sources.download("cifar10", tmp_path / "data")
    assert len(sources.read("cifar10", tmp_path / "data")[0]) == 200


def test_digits_are_embedded_and_their_split_never_changes(tmp_path):
    from sklearn.datasets import load_digits

    sources.download("digits", tmp_path / "nowhere")
    images, labels, test_images, test_labels = sources.read("digits", tmp_path / "nowhere")
    assert images.shape == (1437, 1, 8, 8)
    assert test_images.shape == (360, 1, 8, 8)
    everything = torch.cat((images, test_images)).flatten(1)
    original = torch.from_numpy(load_digits().data)
    rows = torch.cat((everything / 15, torch.cat((labels, test_labels))[:, None]), 1).tolist()
    truth = torch.from_numpy(load_digits().target)[:, None]
    assert sorted(rows) == sorted(torch.cat((original, truth), 1).tolist())
    # results of different versions are comparable only while these stay
    assert test_labels.bincount().tolist() == [35, 37, 35, 37, 36, 36, 37, 36, 34, 37]
    assert int((test_images.long() * torch.arange(1, 361).view(-1, 1, 1, 1)).sum()) == 301989345


@pytest.mark.parametrize(("sizes", "count"), [((50, 50), 10), ((7, 90, 3), 31), ((50, 50), 99)])
def test_a_split_keeps_the_classes_shares(sizes, count):
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate(sizes)])
    labels = labels[torch.randperm(len(labels))]
    rest, part = sources.stratified_split(labels, count)
    assert len(part) == count
    assert torch.equal(torch.cat((rest, part)).sort().values, torch.arange(len(labels)))
    for label, n in enumerate(sizes):
        assert abs(int((labels[part] == label).sum()) - n * count / len(labels)) <= 1
    assert not torch.equal(part, sources.stratified_split(labels, count, seed=1)[1])
