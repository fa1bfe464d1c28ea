"""The detection data modules: batches, augmentation with boxes, determinism, ranks, arguments."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from bnnbench.data import DatasetDamaged, DatasetMissing, DetectionDataModule
from bnnbench.data import detection_transforms as transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RED, LIME, BLUE = (torch.tensor(c) for c in ([255, 0, 0], [0, 255, 0], [0, 0, 255]))
CLASSES = ["red", "lime", "blue"]
OBJECTS = [("red", (4, 3, 18, 30), 0), ("lime", (25, 8, 55, 20), 1), ("blue", (30, 26, 57, 38), 0)]
TRAIN = {f"t{i:02d}": OBJECTS[: i % 4] for i in range(18)}  # every fourth image has no object
TEST = {f"v{i:02d}": OBJECTS[i % 3 :] if i % 4 else [] for i in range(12)}
Target = dict[str, Tensor]
Batch = tuple[Tensor, list[Target]]
Build = Callable[..., DetectionDataModule]


@pytest.fixture
def tree(tmp_path: Path, write_tree: Callable[..., Path]) -> Path:
    """60 x 40 pixels: 18 training images with up to three objects, 12 to test on."""
    splits = {"trainval": list(TRAIN), "test": list(TEST)}
    return write_tree(tmp_path / "voc_folder", TRAIN | TEST, splits)


@pytest.fixture
def unread(tree: Path, dataset_option: Callable[..., Any]) -> Build:
    """The data module of ``voc_folder.yaml`` for small images."""

    def build(**options: Any) -> DetectionDataModule:
        small = {"image_size": 32, "workers": 0, "classes": CLASSES, "channels_last": True}
        return dataset_option("voc_folder", tree.parent, **small | options)

    return build


@pytest.fixture
def module(unread: Build) -> Build:
    def build(**options: Any) -> DetectionDataModule:
        data = unread(**options)
        data.prepare_data()
        data.setup("fit")
        return data

    return build


def place(data: DetectionDataModule, monkeypatch: Any, rank: int, size: int) -> None:
    """Make a module believe that it is one of several processes, in epoch 5."""

    class Strategy:
        root_device = torch.device("cpu")

    class Trainer:
        strategy, current_epoch, num_devices, overfit_batches = Strategy(), 5, size, 0
        global_rank, world_size = rank, size

    monkeypatch.setattr(data, "trainer", Trainer())


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches hold the same images and objects."""
    targets = zip(one[1], other[1], strict=True)
    equal = all(torch.equal(a[key], b[key]) for a, b in targets for key in transforms.KEYS)
    return torch.equal(one[0], other[0]) and equal


def grey_levels(image: Tensor) -> Tensor:
    """A normalised image back in 0 to 255."""
    return (image * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255


def painted(image: Tensor, colour: Tensor) -> Tensor:
    """Box around the pixels of a colour, grey levels (3, H, W) -> (4,), past the last pixel."""
    rows, columns = torch.where((image - colour.view(3, 1, 1)).abs().amax(0) < 100)
    first, last = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
    return torch.tensor([*first, *last])


def test_sizes_counts_and_names(module):
    data = module()
    assert (data.task, data.evaluates_on, data.spec.seed) == ("detection", "test", 3)
    assert (data.train_images, data.test_images, data.eval_images) == (18, 12, 12)
    assert (data.spec.num_classes, data.class_names, data.interpolation) == (3, CLASSES, "11point")


@pytest.mark.parametrize("name", ["voc0712", "shapes"])
def test_the_other_options_build(name, tmp_path, dataset_option):
    data = dataset_option(name, tmp_path)
    assert (data.task, data.spec.seed) == ("detection", 3)
    assert data.spec.num_classes == len(data.class_names) == {"voc0712": 20, "shapes": 3}[name]
    assert data.class_names == sorted(data.class_names) or name == "shapes"
    assert not data.root.exists()  # building reads and writes nothing


def test_evaluation_is_pillows_image_warped_to_the_square_and_normalised(tree, module):
    """Against Pillow's decoder and bilinear resize; each truth is there, difficult ones marked."""
    images, targets = next(iter(module(eval_batch_size=12).test_dataloader()))
    assert (images.shape, images.dtype) == ((12, 3, 32, 32), torch.float32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    for image, target, (name, objects) in zip(images, targets, TEST.items(), strict=True):
        warped = Image.open(tree / "JPEGImages" / f"{name}.jpg").resize((32, 32), Image.BILINEAR)  # type: ignore[attr-defined]
        pixels = torch.from_numpy(np.array(warped)).permute(2, 0, 1)
        assert (grey_levels(image) - pixels).abs().max() < 2.6  # two grey levels of rounding
        assert target["labels"].tolist() == [1 + CLASSES.index(entry[0]) for entry in objects]
        assert target["difficult"].tolist() == [bool(entry[2]) for entry in objects]
        boxes = torch.tensor([entry[1] for entry in objects]).view(-1, 4) - 1
        scale = torch.tensor([32 / 60, 32 / 40] * 2)
        assert torch.allclose(target["boxes"], boxes * scale)
        kinds = [target[key].dtype for key in transforms.KEYS]
        assert kinds == [torch.float32, torch.int64, torch.bool]
        assert all(type(target[key]) is Tensor for key in transforms.KEYS)


@pytest.mark.parametrize("size", [40, 150])
def test_boxes_are_mirrored_and_warped_with_their_pixels(module, size):
    data = module(augmentation="flip", image_size=size, batch_size=18)
    pixel = torch.tensor([size / 60, size / 40] * 2)
    mirrored = 0
    for images, targets in (next(iter(data.train_dataloader())) for _ in range(2)):
        for image, target in zip(images, targets, strict=True):
            for box, label in zip(target["boxes"], target["labels"], strict=True):
                seen = painted(grey_levels(image), (RED, LIME, BLUE)[label - 1])
                # a coordinate minus 1 is short of the last pixel, and half a pixel is blurred
                assert (seen - box).abs().div(pixel).max() < 1.6
                assert abs(float(seen[2] - seen[0] - box[2] + box[0])) < 2.2 * pixel[0]
                mirrored += int(label == 1 and box[0] > size / 2)
    assert 0 < mirrored < 27


def test_without_augmentation_training_sees_what_evaluation_sees(module):
    data = module(augmentation="none", batch_size=18)
    images, targets = next(iter(data.train_dataloader()))
    for image, target in zip(images, targets, strict=True):
        assert not target["labels"].numel() or target["boxes"][0, 0] == pytest.approx(3 * 32 / 60)
        assert len(target["boxes"]) == 0 or painted(grey_levels(image), RED)[0] in (1, 2)


def crowd() -> tuple[Tensor, Target]:
    """24 patches of 24 colours on 240 x 160 pixels; neither labels nor marks follow the place."""
    image = torch.full((3, 160, 240), 128, dtype=torch.uint8)
    boxes, colours = [], []
    for number in range(24):
        left, top = number % 6 * 40 + 4, number // 6 * 40 + 6
        colour = torch.tensor([number * 10, 255 - number * 10, number % 2 * 255])
        image[:, top : top + 30, left : left + 28] = colour.view(3, 1, 1).byte()
        boxes.append([left, top, left + 28, top + 30])
        colours.append(colour)
    labels = torch.arange(24) * 7 % 11
    marks = (torch.arange(24) * 5 % 3 == 0) & (torch.arange(24) % 4 > 0)
    target = {"labels": labels, "difficult": marks, "boxes": within(boxes)}
    return image, target | {"colours": torch.stack(colours)}


def within(boxes: list[list[float]]) -> Tensor:
    """Boxes in an image of 240 x 160 pixels."""
    options: Any = {"format": "XYXY", "canvas_size": (160, 240), "dtype": torch.float32}
    return tv_tensors.BoundingBoxes(boxes, **options)


def one(box: list[float]) -> Target:
    """An object in an image of 240 x 160 pixels."""
    return {"labels": torch.tensor([2]), "difficult": torch.tensor([True]), "boxes": within([box])}


def test_label_and_mark_stay_with_their_box_through_ssds_augmentation(monkeypatch):
    """The colour in the middle of each box tells which object it was."""
    monkeypatch.setattr(v2, "RandomPhotometricDistort", lambda p: v2.Identity())
    transform = transforms.BoxTransform(300, "ssd", MEAN)
    image, target = crowd()
    colours = target.pop("colours").float()
    kept, zoomed, sizes = [], 0, []
    for seed in range(60):
        torch.manual_seed(seed)
        square, result = transform(image.clone(), {k: v.clone() for k, v in target.items()})
        assert (square.shape, square.dtype) == ((3, 300, 300), torch.uint8)
        assert len({len(result[key]) for key in transforms.KEYS}) == 1
        boxes = result["boxes"]
        assert boxes.min() >= 0
        assert boxes.max() <= 300
        zoomed += int((square[:, 0, 0] == torch.tensor([124, 116, 104])).all())
        kept.append(len(boxes))
        for box, label, mark in zip(*(result[key] for key in transforms.KEYS), strict=True):
            x, y = (box[:2] + box[2:]).long() // 2
            distance = (colours - square[:, y, x]).abs().amax(1)
            number = int(distance.argmin())
            sizes.append(float((box[2] - box[0]) / (box[3] - box[1])))
            if min(box[2] - box[0], box[3] - box[1]) > 12:  # else the middle is blurred
                assert distance[number] < 4.5
                assert (label, mark) == (target["labels"][number], target["difficult"][number])
    assert min(kept) < 10  # crops leave objects out
    assert max(kept) == 24  # some do not
    assert 8 < zoomed < 40  # half of them, less those cropped past the border
    assert max(sizes) > 1.5 * min(sizes)  # aspects change


def test_ssds_boxes_are_around_their_pixels(monkeypatch):
    monkeypatch.setattr(v2, "RandomPhotometricDistort", lambda p: v2.Identity())
    transform = transforms.BoxTransform(300, "ssd", MEAN)
    image = torch.full((3, 160, 240), 128, dtype=torch.uint8)
    image[:, 30:100, 50:150] = RED.view(3, 1, 1).byte()
    target = one([50, 30, 150, 100])
    checked = 0
    for seed in range(40):
        torch.manual_seed(seed)
        square, result = transform(image, {k: v.clone() for k, v in target.items()})
        if len(result["boxes"]):
            assert (painted(square.float(), RED) - result["boxes"][0]).abs().max() < 2.5
            checked += 1
    assert checked > 35


def test_ssds_augmentation_may_leave_no_object():
    image, target = crowd()[0], one([4, 6, 18, 24])
    transform = transforms.BoxTransform(24, "ssd", MEAN)
    counts = []
    for seed in range(30):
        torch.manual_seed(seed)
        _, result = transform(image, {k: v.clone() for k, v in target.items()})
        counts.append(len(result["labels"]))
        assert result["boxes"].shape == (counts[-1], 4)
        assert len(result["difficult"]) == counts[-1]
        assert all(type(result[key]) is Tensor for key in transforms.KEYS)
    assert set(counts) == {0, 1}  # 0: smaller than a pixel once zoomed out


def test_ssds_augmentation_changes_colours_but_not_the_colour_around():
    image = torch.tensor([200, 90, 40], dtype=torch.uint8).view(3, 1, 1).expand(3, 160, 240)
    transform = transforms.BoxTransform(24, "ssd", MEAN)
    middles, corners = set(), set()
    for seed in range(40):
        torch.manual_seed(seed)
        square, result = transform(image, one([0, 0, 240, 160]))
        x, y = (result["boxes"][0, :2] + result["boxes"][0, 2:]).long() // 2
        middles.add(tuple(square[:, y, x].tolist()))
        if result["boxes"][0, :2].min() > 1:
            corners.add(tuple(square[:, 0, 0].tolist()))
    assert len(middles) > 15
    assert corners == {(124, 116, 104)}  # normalised: about 0


def test_an_object_that_is_cut_by_a_crops_border_is_kept():
    """Whatever the sizes divide to; torchvision's resize is off by a rounding error."""
    image = torch.zeros(3, 160, 240, dtype=torch.uint8)
    transform = transforms.BoxTransform(30, "ssd", MEAN)
    for seed in range(150):
        torch.manual_seed(seed)
        assert len(transform(image, one([0, 0, 240, 160]))[1]["boxes"]) == 1


def test_an_image_without_objects_is_not_searched_for_them(monkeypatch):
    searched = []
    monkeypatch.setattr(v2.RandomIoUCrop, "make_params", lambda *_: searched.append(1) or {})
    transform = transforms.BoxTransform(24, "ssd", MEAN)
    image, target = crowd()
    for boxes in (target["boxes"][:0], target["boxes"]):
        wrapped = tv_tensors.wrap(boxes, like=target["boxes"])
        transform(image, {k: target[k][: len(boxes)] for k in transforms.KEYS} | {"boxes": wrapped})
    assert searched == [1]


@pytest.mark.parametrize("augmentation", transforms.AUGMENTATIONS)
def test_a_batch_without_any_object_is_background(module, tree, augmentation):
    (tree / "ImageSets" / "Main" / "test.txt").write_text("t00\nt04\nt08\nv01\n")
    (tree / "ImageSets" / "Main" / "trainval.txt").write_text("t00\nt04\nt08\nt12\nt03\n")
    with pytest.warns(UserWarning, match="3 test images of voc_folder are trained on as well"):
        data = module(augmentation=augmentation, eval_batch_size=2, batch_size=4)
    for loader in (data.train_dataloader(), data.test_dataloader()):
        for _ in range(6):
            for images, targets in loader:
                empty = [target for target in targets if not len(target["labels"])]
                assert torch.isfinite(images).all()
                assert len(empty) >= len(targets) - 1
                for target in empty:
                    assert [tuple(target[key].shape) for key in transforms.KEYS] == [
                        (0, 4),
                        (0,),
                        (0,),
                    ]
    batch = next(iter(data.test_dataloader()))[1]
    assert [len(target["labels"]) for target in batch] == [0, 0]


def test_difficult_objects_are_left_out_of_training_alone(module):
    def marked(data: DetectionDataModule, part: str) -> int:
        return int(data.parts[part][1].difficult.sum())

    every = module(val_fraction=0.5)
    data = module(val_fraction=0.5, train_difficult=False)
    assert marked(every, "train") > 0 == marked(data, "train")
    assert marked(data, "val") == marked(every, "val") > 0
    assert marked(data, "test") == marked(every, "test") > 0
    assert data.train_images == every.train_images == 9
    targets = [target for _, batch in data.train_dataloader() for target in batch]
    assert not any(target["difficult"].any() for target in targets)
    assert not any((target["labels"] == 2).any() for target in targets)  # lime is the marked one


def test_the_held_out_part_is_the_same_for_every_run_and_not_augmented(module):
    data, other = module(val_fraction=1 / 3), module(val_fraction=1 / 3, seed=9)
    assert (data.evaluates_on, data.train_images, data.eval_images) == ("val", 12, 6)
    assert data.test_images == 12
    assert data.parts["val"][0].tolist() == other.parts["val"][0].tolist()
    assert not set(data.parts["val"][0].tolist()) & set(data.parts["train"][0].tolist())
    files = [Path(file.decode()).stem for file in data.parts["val"][0]]
    assert files != sorted(TRAIN)[:6]
    assert data.parts["val"][1].counts.tolist() == [len(TRAIN[name]) for name in files]
    loader = data.val_dataloader()
    assert same(next(iter(loader)), next(iter(loader)))
    with pytest.raises(ValueError, match="would hold out 0 of 18"):
        module(val_fraction=0.01)


def epochs(data: DetectionDataModule, count: int = 2) -> list[list[Batch]]:
    loader = data.train_dataloader()
    return [list(loader) for _ in range(count)]


def test_batches_follow_seed_and_epoch_but_not_workers_or_global_generators(module):
    torch.manual_seed(0)
    np.random.seed(0)
    before, numbers = torch.get_rng_state(), np.random.get_state()[1]
    alone = epochs(module())
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numbers).all()
    torch.manual_seed(1)
    np.random.seed(1)
    shared = epochs(module(workers=2))
    for batches, others in zip(alone, shared, strict=True):
        assert len(batches) == 4  # the last short batch is dropped
        assert all(map(same, batches, others))
    assert not any(map(same, alone[0], alone[1]))
    assert not any(map(same, alone[0], epochs(module(seed=4), 1)[0]))


def test_an_image_is_augmented_anew_in_each_epoch_and_by_each_seed(module):
    files, other = module().files("train", True), module(seed=4).files("train", True)
    first = files[0, 3]
    assert torch.equal(first[0], files[0, 3][0])
    for image, _ in (files[1, 3], files[0, 7], other[0, 3]):  # images 3 and 7 are equal
        assert not torch.equal(first[0], image)
    unchanged = module().files("test", False)
    assert torch.equal(unchanged[0, 3][0], unchanged[1, 3][0])


@pytest.mark.parametrize("size", [1, 2, 5])
def test_ranks_read_each_test_image_once_in_equally_many_batches(module, monkeypatch, size):
    seen, counts = [], []
    whole = next(iter(module(eval_batch_size=12).test_dataloader()))
    for rank in range(size):
        data = module(eval_batch_size=2)
        place(data, monkeypatch, rank, size)
        batches = list(data.val_dataloader())
        counts.append(len(batches))
        for number, entry in enumerate(zip(*map(flat, zip(*batches, strict=True)), strict=True)):
            place_in_set = rank + number * size
            expected = (whole[0][place_in_set][None], [whole[1][place_in_set]])
            assert same((entry[0][None], [entry[1]]), expected)
            seen.append(place_in_set)
    assert len(set(counts)) == 1
    assert sorted(seen) == list(range(12))


def flat(parts: tuple[Any, ...]) -> list[Any]:
    return [entry for part in parts for entry in part]


def test_two_ranks_cut_one_permutation(module, monkeypatch):
    parts = []
    for rank in range(2):
        data = module()
        place(data, monkeypatch, rank, 2)
        parts.append([flat(part) for part in zip(*data.train_dataloader(), strict=True)])
    whole = module(batch_size=8)
    place(whole, monkeypatch, 0, 1)
    images, targets = (flat(part) for part in zip(*whole.train_dataloader(), strict=True))
    for index in range(8):  # image for image: augmentation does not depend on the rank
        for rank in range(2):
            one = parts[rank][0][index][None], [parts[rank][1][index]]
            assert same(one, (images[2 * index + rank][None], [targets[2 * index + rank]]))


class Recorder(L.LightningModule):
    """Trains nothing and remembers its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[Batch] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen.append(batch)
        return self.weight * batch[0].mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    data: L.LightningDataModule, epochs: int, ckpt: Path | None = None, task: Any = None
) -> tuple[Any, ...]:
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    task = task or Recorder()
    trainer.fit(task, data, ckpt_path=ckpt)
    return task, trainer


def test_a_resumed_training_sees_what_an_uninterrupted_one_sees(unread, tmp_path):
    whole, _ = fit(unread(), 3)
    _, first = fit(unread(), 2)
    first.save_checkpoint(tmp_path / "last.ckpt")
    rest, _ = fit(unread(workers=1), 3, tmp_path / "last.ckpt")
    assert len(rest.seen) == 4
    assert all(map(same, whole.seen[8:], rest.seen))


def test_a_truncated_image_is_named(tree, module):
    file = tree / "JPEGImages" / "v03.jpg"
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(DatasetDamaged, match=r"v03\.jpg cannot be read .*truncated.*replace it"):
        list(module().test_dataloader())


def test_an_image_of_another_size_than_its_xml_file_says_is_named(tree, module):
    file = tree / "JPEGImages" / "v03.jpg"
    Image.open(file).rotate(90, expand=True).save(file)
    with pytest.raises(DatasetDamaged, match=r"v03\.jpg has 40 x 60 .* XML file says 60 x 40"):
        list(module().test_dataloader())


def test_a_grey_image_becomes_rgb(tree, module):
    file = tree / "JPEGImages" / "v01.jpg"
    Image.open(file).convert("L").save(file)
    assert next(iter(module().test_dataloader()))[0].shape == (12, 3, 32, 32)


@pytest.mark.parametrize("breaks_off", [False, True])
def test_workers_end_with_the_run(unread, breaks_off):
    class Failing(Recorder):
        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            assert multiprocessing.active_children()
            if breaks_off and batch_idx == 2:
                raise RuntimeError("loss is not finite")
            return super().training_step(batch, batch_idx)

    data = unread(workers=2)
    start = time.monotonic()
    if breaks_off:
        with pytest.raises(RuntimeError, match="not finite"):
            fit(data, 2, task=Failing())
    else:
        fit(data, 2, task=Failing())
    assert not multiprocessing.active_children()
    assert time.monotonic() - start < 20  # the garbage collector would need 5 seconds a worker
    assert len(list(data.train_dataloader())) == 4  # workers of their own
    data.teardown()


def test_workers_end_although_a_pass_is_not_over(module):
    loader = module(workers=2).train_dataloader()
    batches = iter(loader)
    next(batches)
    assert multiprocessing.active_children()
    loader.close()
    assert not multiprocessing.active_children()
    assert len(list(loader)) == 4
    loader.close()


def test_splits_that_are_not_there_are_refused_before_training(unread):
    with pytest.raises(DatasetMissing, match=r"val\.txt does not exist; these exist: test, train"):
        unread(test=["val"]).prepare_data()
    with pytest.raises(DatasetMissing, match=r"dataset\.folder="):
        unread(folder="elsewhere").prepare_data()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": []}, r"leave it out, .*or set 'dataset\.classes=\[blue,lime,red\]'"),
        ({"classes": ["red", "red", "blue"]}, "names a class twice"),
        ({"num_classes": 4}, "num_classes=4, but dataset.classes has 3 names"),
        ({"augmentation": "crop"}, "augmentation=crop: choose from ssd, flip, none"),
        ({"interpolation": "coco"}, "interpolation=coco: choose from 11point, area"),
        ({"bad_boxes": "keep"}, "bad_boxes=keep: choose from error, drop"),
        ({"task": "classification"}, "task=classification: choose from detection"),
        ({"train": []}, r"dataset\.train=\[\]: give a list of splits, such as \[trainval\]"),
        ({"test": "test"}, "dataset.test=test: give a list"),
        ({"in_channels": 1}, "in_channels=1: .*RGB"),
        ({"workers": -1}, "workers=-1: use auto or"),
        ({"image_size": 0}, "image_size=0"),
        ({"mean": [0.5]}, "mean=.*needs 3 values"),
        ({"eval_batch_size": 0}, "eval_batch_size=0"),
        ({"batch_size": 1}, "batch_size=1: batch norm"),
        ({"val_fraction": 1.0}, "val_fraction=1.0 must be in"),
    ],
)
def test_arguments_are_checked(unread, options, message):
    with pytest.raises(ValueError, match=message):
        unread(**options)


def test_real_blood_cells_are_read_and_augmented(shared_data, dataset_option):
    data = dataset_option(
        "voc_folder", shared_data, folder="bccd/BCCD", classes=["Platelets", "RBC", "WBC"],
        bad_boxes="drop", image_size=120, workers=0, val_fraction=0.9,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="boxes without area left out: 2"):
        data.setup()
    assert (data.train_images, data.eval_images, data.test_images) == (29, 263, 72)
    images, targets = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 120, 120)
    assert images.mean().abs() < 1.5
    boxes = torch.cat([target["boxes"] for target in targets])
    assert len(boxes) > 4
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    objects = [len(target["labels"]) for _, batch in data.test_dataloader() for target in batch]
    assert (len(objects), sum(objects)) == (72, int(data.parts["test"][1].counts.sum()))
