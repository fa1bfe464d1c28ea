"""Sets of arrays: forms of files, shapes, numbers, labels, parts, statistics, identity."""

from __future__ import annotations

import bz2
import gzip
import json
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from bnnbench.data import ArraysDataModule, DatasetDamaged, DatasetMissing, arrays
from bnnbench.data.array_sets import SETS, known_set
from bnnbench.data.array_survey import survey_of
from bnnbench.data.pixels import as_bytes
from bnnbench.records.fingerprint import fingerprint, run_name
from bnnbench.records.stamps import stamp_of
from bnnbench.runs import run
from bnnbench.runs.preflight import preflight

Compose = Callable[..., DictConfig]


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), dtype=np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    return np.arange(40) % 4


def source(folder: Path, **keys: Any) -> dict[str, Any]:
    names = ("file", "images", "labels", "test_images", "test_labels", "torchvision")
    return dict.fromkeys(names) | {"data_dir": str(folder)} | keys


def saved(path: Path, **content: Any) -> dict[str, Any]:
    np.savez(path, **content)
    return source(path.parent, file=path.name)


def module(told: dict[str, Any], **options: Any) -> ArraysDataModule:
    found = survey_of(told)
    own: dict[str, Any] = {"name": "mine", "num_classes": len(found.classes), "seed": 0}
    own |= {"in_channels": found.channels, "image_size": found.sides[0], "mean": "auto"}
    own |= {"std": "auto", "pad": 0, "flip": False, "batch_size": 4}
    data = ArraysDataModule(**told | own | options)
    data.prepare_data()
    data.setup("fit")
    return data


FORMS = {
    "ours": ("train_images", "train_labels", "test_images", "test_labels"),
    "keras": ("x_train", "y_train", "x_test", "y_test"),
    "capitals": ("X_train", "Y_train", "X_test", "Y_test"),
    "medmnist": ("train_images", "train_labels", "val_images", "val_labels"),
    "short": ("trainX", "trainY", "testX", "testY"),
    "beside": ("data", "target", "data_test", "target_test"),
}


@pytest.mark.parametrize("form", FORMS)
def test_names_of_arrays(tmp_path: Path, images: Any, labels: Any, form: str) -> None:
    content = dict(zip(FORMS[form], (images, labels, images[:8], labels[:8]), strict=True))
    found = arrays.read(saved(tmp_path / "a.npz", **content, classes=np.array(["a", "b"])))
    for tensor, array in zip(found[::2], (images, images[:8]), strict=True):
        assert np.array_equal(tensor.permute(0, 2, 3, 1).numpy(), array)
    assert found[1].tolist() == labels.tolist()
    assert found[3].tolist() == labels[:8].tolist()


def test_a_test_part_goes_before_a_validation_part(
    tmp_path: Path, images: Any, labels: Any
) -> None:
    parts = {"train": slice(0, 20), "val": slice(20, 28), "test": slice(28, 40)}
    content = {f"{part}_images": images[own] for part, own in parts.items()}
    content |= {f"{part}_labels": labels[own] for part, own in parts.items()}
    assert len(arrays.read(saved(tmp_path / "a.npz", **content))[2]) == 12


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW", "NHW1", "N1HW", "NHW-wide"])
def test_shapes_are_told_apart(tmp_path: Path, images: Any, labels: Any, layout: str) -> None:
    chosen = {
        "NHWC": images,
        "NCHW": images.transpose(0, 3, 1, 2),
        "NHW": images[..., 0],
        "NHW1": images[..., :1],
        "N1HW": images[:, None, :, :, 0],
        "NHW-wide": np.repeat(images, 4, axis=3),  # twelve channels of twelve pixels
    }[layout]
    told = saved(tmp_path / "a.npz", images=chosen, labels=labels)
    if layout == "NHW-wide":
        with pytest.raises(DatasetDamaged, match=r"which axis holds the channels cannot be told"):
            survey_of(told)
        return
    found = arrays.read(told)[0]
    expected = images.transpose(0, 3, 1, 2)[:, : found.shape[1]]
    assert np.array_equal(found.numpy(), expected)


def test_many_channels_are_told_by_equal_sides(tmp_path: Path, labels: Any) -> None:
    for shape, channels in (((40, 13, 16, 16), 13), ((40, 16, 16, 13), 13)):
        told = saved(tmp_path / f"{shape[1]}.npz", images=np.full(shape, 9, "u1"), labels=labels)
        assert survey_of(told).channels == channels
        assert arrays.read(told)[0].shape == (40, 13, 16, 16)


@pytest.mark.parametrize("dtype", ["u1", "i8", "f4", "f8", "f2", "f4-255", "u2"])
def test_numbers_are_the_bytes_they_stand_for(dtype: str) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    name, _, top = dtype.partition("-")
    floats = name.startswith("f") and not top
    given = pixels.astype(name) / np.dtype(name).type(255) if floats else pixels.astype(name)
    found, most = as_bytes(given, "x")
    assert np.array_equal(found, pixels)
    assert most == (1 if floats else 255)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0.0, 0.5]], np.float32), "more than 8 bits.*255.*astype"),
        (np.array([[0.0, 100.5]], np.float32), "more than 8 bits, not only whole numbers"),
        (np.array([[-1.0, 1.0]], np.float32), "runs from -1 to 1"),
        (np.array([[0.0, np.nan]], np.float32), "not finite"),
        (np.array([[0, 65535]], np.uint16), "runs from 0 to 65535"),
        (np.array([[0, 1]], np.uint8), "nothing above 1, which would be black"),
        (np.array([[0, 1]], np.int64), "nothing above 1"),
        (np.array([[True, False]]), "x is bool"),
        (np.array([["a"]]), "which is no pixel"),
    ],
)
def test_other_numbers_are_refused(values: Any, message: str) -> None:
    with pytest.raises(DatasetDamaged, match=message):
        as_bytes(values, "x")


def test_test_images_are_read_as_the_training_images(
    tmp_path: Path, images: Any, labels: Any
) -> None:
    dark = np.zeros((4, 12, 12, 3), np.float32)
    dark[0, 0, 0] = 1 / 255
    content = {"x_train": images / np.float32(255), "y_train": labels, "y_test": labels[:4]}
    found = arrays.read(saved(tmp_path / "a.npz", **content, x_test=dark))[2]
    assert int(found.max()) == 1
    with pytest.raises(DatasetDamaged, match="save both alike"):
        arrays.read(saved(tmp_path / "b.npz", **content, x_test=images[:4]))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("column", "0123"),
        ("one-hot", "0123"),
        ("floats", "0123"),
        ("texts", "abcd"),
        ("bytes", "abcd"),
        ("gaps", ["-3", "5", "7", "100"]),
    ],
)
def test_labels_are_numbered_by_class(
    tmp_path: Path, images: Any, labels: Any, kind: str, names: Any
) -> None:
    given = {
        "column": labels[:, None],
        "one-hot": np.eye(4)[labels],
        "floats": labels.astype(np.float32),
        "texts": np.array(list("abcd"))[labels],
        "bytes": np.array([b"a", b"b", b"c", b"d"])[labels],
        "gaps": np.array([-3, 5, 7, 100])[labels],
    }[kind]
    told = saved(tmp_path / "a.npz", images=images, labels=given)
    assert survey_of(told).classes == tuple(names)
    assert arrays.read(told)[1].tolist() == labels.tolist()


ROWS = np.arange(40)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": ROWS % 4}, r"holds labels: images and labels are found under"),
        ({"images": 0, "labels": 0}, r"has the shape \(\)"),
        ({"images": np.zeros((40, 784)), "labels": ROWS % 4}, r"x.reshape\(-1, 28, 28\)"),
        ({"images": np.zeros((40, 30)), "labels": ROWS % 4}, r"x.reshape\(-1, H, W\)"),
        ({"images": np.zeros((40, 4, 4)), "labels": ROWS % 4}, "at least 8 pixels a side"),
        ({"images": np.zeros((12, 12, 40)), "labels": ROWS % 4}, "12 images and .* 40 labels"),
        ({"images": np.zeros((39, 9, 9)), "labels": ROWS % 4}, "39 images and .* 40 labels"),
        ({"images": np.zeros((40, 9, 9)), "labels": ROWS}, "40 different values in 40 images"),
        ({"images": np.zeros((40, 9, 9)), "labels": ROWS * 0}, "one class, 0"),
        ({"images": np.zeros((40, 9, 9)), "labels": ROWS % 4 / 3}, "not whole"),
        ({"images": np.zeros((40, 9, 9)), "labels": np.ones((40, 4))}, "not one-hot"),
        ({"images": np.zeros((40, 9, 9)), "labels": (ROWS == 3) * 1}, "one image alone is of"),
        ({"images": np.array([None] * 40), "labels": ROWS % 4}, "Python objects, which may run"),
    ],
)
def test_what_is_no_set_of_images_is_told(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    with pytest.raises(DatasetDamaged, match=message) as caught:
        survey_of(saved(tmp_path / "a.npz", **content))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "a.npz") in str(caught.value)


def test_labels_that_nothing_was_trained_on(tmp_path: Path, images: Any, labels: Any) -> None:
    content = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels + 1}
    with pytest.raises(DatasetDamaged, match="holds 4, which no training image is of"):
        arrays.read(saved(tmp_path / "a.npz", **content))


@pytest.mark.parametrize("kind", ["empty", "text", "half", "npy"])
def test_damaged_files_are_named(tmp_path: Path, images: Any, labels: Any, kind: str) -> None:
    told = saved(tmp_path / "a.npz", images=images, labels=labels)
    file = tmp_path / "a.npz"
    whole = file.read_bytes()
    bad = {"empty": b"", "text": b"no archive", "half": whole[: len(whole) // 2]}
    if kind == "npy":
        np.save(tmp_path / "x.npy", images)
        np.save(tmp_path / "y.npy", labels)
        told = source(tmp_path, images="x.npy", labels="y.npy")
        file = tmp_path / "x.npy"
        bad["npy"] = file.read_bytes()[:-7]
    file.write_bytes(bad[kind])
    with pytest.raises(DatasetDamaged, match=f"{file} cannot be read"):
        survey_of(told)


def test_a_claim_is_held_against_the_file(tmp_path: Path, labels: Any) -> None:
    head = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    claim = b"{'descr': '|u1', 'fortran_order': False, 'shape': (40, 900000, 900000), }"
    (tmp_path / "x.npy").write_bytes(head + claim.ljust(117) + b"\n")
    np.save(tmp_path / "y.npy", labels)
    with pytest.raises(DatasetDamaged, match=r"claims 32400000000128 bytes, it has 128"):
        survey_of(source(tmp_path, images="x.npy", labels="y.npy"))


def test_without_a_test_part_a_fifth_of_each_class_is_held_out(tmp_path: Path, images: Any) -> None:
    labels = np.repeat([0, 1, 2], [30, 8, 2])
    told = saved(tmp_path / "a.npz", images=images, labels=labels)
    data, again, more = module(told), module(told, seed=5), module(told, test_fraction=0.5)
    assert data.parts["test"][1].bincount().tolist() == [6, 2, 1]
    assert more.parts["test"][1].bincount().tolist() == [15, 4, 1]
    assert survey_of(told).train_images(None) == data.train_images == 31
    assert survey_of(told).train_images(0.5) == more.train_images == 20
    assert torch.equal(data.parts["test"][0], again.parts["test"][0])
    both = torch.cat([data.parts[part][0] for part in ("train", "test")]).flatten(1)
    assert sorted(both.tolist()) == sorted(
        torch.from_numpy(images).permute(0, 3, 1, 2).flatten(1).tolist()
    )
    assert data.stamp == more.stamp == again.stamp


def test_statistics_are_measured_on_what_is_trained_on(
    tmp_path: Path, images: Any, labels: Any
) -> None:
    told = saved(tmp_path / "a.npz", images=images, labels=labels)
    data = module(told, val_fraction=0.25, std=[0.5, 0.5, 0.5])
    pixels = data.parts["train"][0].double() / 255
    assert data.train_images == 24
    assert data.spec.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=5.1e-5)
    assert data.spec.std == [0.5, 0.5, 0.5]
    assert data.augmentation.mean == tuple(data.spec.mean)
    whole = module(told)
    batches = torch.cat([x for x, _ in whole.train_dataloader()])
    assert batches.std((0, 2, 3)).tolist() == pytest.approx([1.0] * 3, abs=0.02)


def test_another_size_resizes_them(tmp_path: Path, labels: Any) -> None:
    flat = np.full((40, 12, 20), 77, np.uint8)
    flat[0, 0, 0] = 3
    told = saved(tmp_path / "a.npz", images=flat, labels=labels)
    data = module(told, image_size=16, in_channels=1)
    parts = [data.parts[part][0] for part in ("train", "test")]
    assert {tuple(part.shape[1:]) for part in parts} == {(1, 16, 16)}
    assert int((torch.cat(parts) != 77).sum()) <= 4
    assert data.stamp == module(told, image_size=24, in_channels=1).stamp


# --- through the config --------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path, images: Any, labels: Any) -> str:
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "my set.npz", images=images, labels=labels)
    return "dataset.file='my set.npz'"


def test_the_file_alone_is_enough(compose: Compose, file: str, short: list[str]) -> None:
    cfg = compose("dataset=image_arrays", file, *short[2:], "backbone=resnet20")
    own = cfg.dataset
    assert (own.name, own.num_classes, own.in_channels, own.image_size) == ("my_set", 4, 3, 12)
    assert (own.batch_size, cfg.trainer.max_epochs, own.pad, own.flip) == (16, 200, 1, False)
    assert run_name(cfg).startswith("my_set_resnet20_adabin_task_unified_limited_s0_")
    cfg.trainer.max_epochs = 1
    folder = Path(cfg.paths.output_dir)
    run.execute(cfg, folder, quiet=True)
    result = json.loads((folder / "result.json").read_text())
    assert result["classes"]["names"] == ["0", "1", "2", "3"]
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["bnnbench"]
    assert content["mean"] == pytest.approx([0.5, 0.5, 0.5], abs=0.02)  # measured, not auto
    cache = Path(cfg.paths.log_dir) / "stamps.json"
    assert result["data_stamp"] in cache.read_text()


def test_where_a_file_lies_is_no_part_of_a_run_and_what_it_holds_is(
    compose: Compose, tmp_path: Path, file: str, images: Any, labels: Any
) -> None:
    from omegaconf import OmegaConf

    other = tmp_path / "other" / "my set.npz"
    other.parent.mkdir()
    other.write_bytes((tmp_path / "data" / "my set.npz").read_bytes())
    first, moved = (
        compose("dataset=image_arrays", word) for word in (file, f"dataset.file='{other}'")
    )
    assert fingerprint(first) == fingerprint(moved)

    def stamped(cfg: DictConfig) -> str | None:
        node: Any = OmegaConf.to_container(cfg.dataset, resolve=True)
        return stamp_of(node, tmp_path / "stamps.json")

    assert stamped(first) == stamped(moved)
    known = stamped(first)
    np.savez(other, images=images, labels=(labels + 1) % 4)
    assert stamped(moved) not in (None, known)
    assert stamped(first) == known
    other.unlink()
    assert stamped(first) == known


def test_a_file_of_a_known_sets_name_is_not_taken_for_it(
    compose: Compose, tmp_path: Path, images: Any, labels: Any
) -> None:
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "cifar10.npz", images=images, labels=labels)
    cfg = compose("dataset=image_arrays", "dataset.file=cifar10.npz")
    assert cfg.dataset.name == "cifar10_arrays"
    assert cfg.trainer.max_epochs == 200  # of its size, not CIFAR-10's
    assert compose("dataset=image_arrays", "dataset.torchvision=CIFAR10").dataset.name == "CIFAR10"


@pytest.mark.parametrize("recipe", ["unified", "native", "two_step", "bayesbinn", "finetune"])
def test_recipes_take_it(compose: Compose, file: str, recipe: str) -> None:
    needs = {
        "bayesbinn": ["quantizer=bayesbinn"],
        "finetune": ["quantizer=bonn", "loss=bonn", "recipe.finetune_epochs=1"],
    }
    words = ["dataset=image_arrays", file, "backbone=resnet20", f"recipe={recipe}"]
    cfg = compose(*words, *needs.get(recipe, []), "logger=none", "trainer.accelerator=cpu")
    preflight([cfg])
    assert cfg.trainer.max_epochs == 200


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "has no arrays: give dataset.file="),
        ("dataset.file=no.npz", r"dataset.file=no.npz: there is no file .*data/no.npz nor "),
        ("dataset.images=a.npy", "has dataset.images: give"),
        ("dataset.file=a.npz dataset.torchvision=MNIST", "dataset.file and dataset.torchvision"),
        ("dataset.torchvision=mnist", "Did you mean MNIST"),
        ("dataset.torchvision=Food101", "dataset=image_folder"),
        ("dataset.torchvision=EMNIST", "choose a part of it, EMNIST/balanced"),
    ],
)
def test_what_is_missing_is_told_in_a_line(compose: Compose, words: str, message: str) -> None:
    from bnnbench.checks.errors import message as told

    with pytest.raises(Exception, match=message) as caught:
        fingerprint(compose("dataset=image_arrays", *words.split()))
    line = told(caught.value)
    assert line.startswith("dataset")
    assert "\n" not in line


def test_images_that_are_no_squares_need_a_size(
    compose: Compose, tmp_path: Path, labels: Any
) -> None:
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "a.npz", images=np.full((40, 12, 20), 9, "u1"), labels=labels)
    words = ["dataset=image_arrays", "dataset.file=a.npz"]
    with pytest.raises(Exception, match=r"12 pixels high and 20 wide: give dataset\.image_size="):
        fingerprint(compose(*words))
    assert compose(*words, "dataset.image_size=32").dataset.pad == 2


# --- torchvision ---------------------------------------------------------------------------------


def idx(path: Path, array: np.ndarray) -> None:
    """A file of MNIST's form: magic number, sizes (big endian), bytes."""
    head = np.array([0x0800 + array.ndim, *array.shape], dtype=">i4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def write_set(name: str, root: Path, draw: np.random.Generator) -> tuple[Any, Any]:
    """Twenty training images in torchvision's own files; returns them and their labels."""
    known = known_set(name)
    shape, classes = known.shape, len(known.names)
    images = draw.integers(0, 256, (20, *shape), dtype=np.uint8)
    labels = np.arange(20) % classes
    kind, _, split = name.partition("/")
    if kind in ("MNIST", "KMNIST", "EMNIST"):
        tag = f"emnist-{split}-" if split else ""
        for part, stem in (("train", "train"), ("test", "test" if split else "t10k")):
            place = root / kind / "raw" / f"{tag}{stem}"
            idx(Path(f"{place}-images-idx3-ubyte"), images[:, 0])
            idx(Path(f"{place}-labels-idx1-ubyte"), labels + known.first)
            assert part
    elif kind == "SVHN":
        from scipy.io import savemat

        for part in ("train", "test"):
            content = {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels, labels, 10)}
            savemat(root / f"{part}_32x32.mat", content)
    elif kind == "STL10":
        (root / "stl10_binary").mkdir()
        for part in ("train", "test"):
            flipped = images.transpose(0, 1, 3, 2)
            (root / "stl10_binary" / f"{part}_X.bin").write_bytes(flipped.tobytes())
            (root / "stl10_binary" / f"{part}_y.bin").write_bytes(
                (labels + 1).astype("u1").tobytes()
            )
        (root / "stl10_binary" / "class_names.txt").write_text("\n".join(known.names))
    elif kind == "USPS":
        images = images // 51 * 51  # of what survives its text form
        rows = [
            f"{y + 1} " + " ".join(f"{i}:{v / 127.5 - 1:.8f}" for i, v in enumerate(x.flat, 1))
            for x, y in zip(images, labels, strict=True)
        ]
        for part in known.files:
            (root / part).write_bytes(bz2.compress("\n".join(rows).encode()))
    return images, labels


@pytest.mark.parametrize("name", ["MNIST", "KMNIST", "EMNIST/letters", "SVHN", "STL10", "USPS"])
def test_sets_of_torchvision_are_read_from_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import torchvision

    for kind in ("STL10", "SVHN", "USPS"):
        monkeypatch.setattr(
            f"torchvision.datasets.{kind.lower()}.check_integrity", lambda *_: True, raising=False
        )
    monkeypatch.setattr(torchvision.datasets.STL10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda self: True)
    images, labels = write_set(name, tmp_path, np.random.default_rng(0))
    told = source(tmp_path, torchvision=name)
    arrays.download(name, tmp_path)  # it is there
    found = arrays.read(told)
    assert np.abs(found[0].numpy().astype(int) - images).max() <= 1
    assert found[1].tolist() == labels.tolist()
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("name", SETS)
def test_what_is_known_of_a_set_is_torchvisions(name: str) -> None:
    """Classes as torchvision names them, in its order, where it does."""
    import torchvision

    known, (kind, _, split) = known_set(name), name.partition("/")
    theirs = getattr(torchvision.datasets, kind)
    names = list(getattr(theirs, "classes", []))
    if kind == "EMNIST":
        names = list(theirs.classes_split_dict[split])[known.first :]
    if kind in ("FashionMNIST", "KMNIST"):
        assert list(known.names) == names
    elif kind == "EMNIST":
        assert [n.lower() for n in known.names] == [n.lower() for n in names]
    elif kind in ("MNIST", "QMNIST"):
        assert [n.partition(" ")[0] for n in names] == list(known.names)
    total = survey_of(source(Path("."), torchvision=name)).train_images(None)
    assert total == known.train if known.test else total < known.train


def test_an_absent_set_without_network_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    for name in ("MNIST", "SVHN", "STL10", "USPS", "EMNIST/letters", "SEMEION"):
        with pytest.raises(DatasetMissing, match=f"torchvision={name}: .*cannot be downl") as told:
            arrays.download(name, tmp_path / "new")
        assert "\n" not in str(told.value)
        assert "paths.data_dir=" in str(told.value)
    assert [p for p in (tmp_path / "new").rglob("*") if p.is_file()] == []


def test_a_download_is_moved_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    write_set("MNIST", tmp_path / "server", np.random.default_rng(0))
    calls: list[str] = []

    def fetch(self: Any) -> None:
        calls.append(self.root)
        for file in (tmp_path / "server" / "MNIST" / "raw").iterdir():
            into = Path(self.root) / "MNIST" / "raw" / file.name
            into.parent.mkdir(parents=True, exist_ok=True)
            into.write_bytes(gzip.decompress(gzip.compress(file.read_bytes())))

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", fetch)
    for _ in range(2):
        arrays.download("MNIST", tmp_path / "data")
    assert len({*calls}) == 1
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["MNIST"]
    assert len(arrays.read(source(tmp_path / "data", torchvision="MNIST"))[0]) == 20
