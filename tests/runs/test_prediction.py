"""What is predicted for image files is what the network says of their pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn

import bnnbench
from bnnbench.commands.predict import find_images
from bnnbench.records.signature import Signature
from bnnbench.runs.build import build_datamodule
from bnnbench.runs.prediction import fitted, predict
from bnnbench.runs.run import execute
from bnnbench.runs.trained import Trained
from bnnbench.tasks.rebuilt import Described

Compose = Callable[..., DictConfig]
CLASSES = ["ant", "bee", "cow"]


def trained(net: nn.Module, **dataset: object) -> Trained:
    known = {"in_channels": 3, "image_size": 8, "_target_": "bnnbench.data.ImageDataModule"}
    signature = Signature("run", "0" * 64, None, {}, None, CLASSES, [0.0] * 3, [1.0] * 3)
    return Trained(net, Described({}, signature, {"dataset": known | dataset}))


class Brightness(nn.Module):
    """Logits that are the mean of each colour, in units of 1 / 255."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) * 255


class OneBox(nn.Module):
    """A detector that finds the second class in the middle, surely, and others hardly."""

    def forward(self, images: Tensor) -> Tensor:
        return images

    def detect(self, outputs: Tensor) -> list[dict[str, Tensor]]:
        boxes = torch.tensor([[0.0, 0, 1, 1], [2.0, 2, 6, 4], [0, 0, 8, 8]])
        scores, labels = torch.tensor([0.4, 0.9, 0.1]), torch.tensor([1, 2, 3])
        return [{"boxes": boxes, "scores": scores, "labels": labels} for _ in outputs]


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def test_classes_come_with_their_probabilities_best_first(tmp_path: Path) -> None:
    files = [picture(tmp_path / f"{n}.png", c) for n, c in (("a", (0, 2, 1)), ("b", (9, 0, 0)))]
    first, second = predict(trained(Brightness()), files, top=2)
    assert (first.file, first.labels, first.boxes) == (files[0], ("bee", "cow"), None)
    expected = torch.tensor([0.0, 2, 1]).softmax(0)[[1, 2]].tolist()
    assert first.scores == pytest.approx(expected, rel=1e-4)
    assert second.labels[0] == "ant"
    assert len(second.labels) == 2


def test_more_images_than_a_batch_keep_their_order(tmp_path: Path) -> None:
    files = [picture(tmp_path / f"{n}.png", (n, 0, 0)) for n in range(40)]
    told = list(predict(trained(Brightness()), files))
    assert [each.file for each in told] == files
    assert [each.labels[0] for each in told[1:]] == ["ant"] * 39


def test_boxes_are_in_pixels_of_the_image(tmp_path: Path) -> None:
    file = picture(tmp_path / "wide.png", (1, 2, 3), size=(80, 16))
    detector = trained(OneBox(), task="detection")
    (each,) = predict(detector, [file])
    assert each.labels == ("bee", "ant")  # by score; the third is below it
    assert each.boxes == ((20, 4, 60, 8), (0, 0, 10, 2))
    (best,) = predict(detector, [file], top=1)
    assert best.as_dict()["predictions"] == [
        {"label": "bee", "score": pytest.approx(0.9), "box": [20, 4, 60, 8]}
    ]


def test_an_image_that_cannot_be_read_is_told_and_costs_no_other(tmp_path: Path) -> None:
    good, bad = picture(tmp_path / "a.png", (0, 2, 1)), tmp_path / "b.png"
    bad.write_text("<html>")
    first, second, third = predict(trained(Brightness()), [good, bad, good])
    assert first.labels == third.labels
    assert second.as_dict() == {"file": str(bad), "error": "it is a web page"}


def test_images_are_fitted_as_evaluation_does(tmp_path: Path) -> None:
    wide = torch.arange(256, dtype=torch.uint8).expand(3, 128, 256)
    small = fitted(trained(Brightness()), wide)
    assert small.shape == (3, 8, 8)
    assert 60 < small[0, 0, 0] < 80  # the middle half of the width: 64 to 192
    assert 176 < small[0, 0, -1] < 196
    folder = "bnnbench.data.ImageFolderDataModule"
    cropped = fitted(trained(Brightness(), _target_=folder), wide)
    assert cropped[0, 0, 0] > small[0, 0, 0]  # the centre of it, by 224 / 256
    grey = fitted(trained(Brightness(), in_channels=1), wide)
    assert grey.shape == (1, 8, 8)
    exact = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    assert torch.equal(fitted(trained(Brightness()), exact), exact)


def test_inputs_are_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "deep/c.png", "notes.txt", "._x.png"):
        picture(tmp_path / name, (1, 2, 3)) if name[-3:] != "txt" else (tmp_path / name).touch()

    def names(*inputs: str) -> list[str]:
        return [str(file.relative_to(tmp_path)) for file in find_images(inputs)]

    assert names(str(tmp_path)) == ["a.JPG", "b.png"]
    assert names(f"{tmp_path}/b.png", str(tmp_path)) == ["b.png", "a.JPG"]
    assert names(f"{tmp_path}/**/*.png") == ["b.png", "deep/c.png"]
    assert names(f"{tmp_path}/*") == ["a.JPG", "b.png"]


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("nowhere", "there is no such file or folder, and no image whose name fits"),
        ("*.png", "no image whose name fits"),
        ("empty", "the folder holds no image$"),
        ("above", r"the folder holds no image; for the images of its folders give '.*/\*\*/\*'"),
    ],
)
def test_an_input_without_images_says_so(tmp_path: Path, place: str, told: str) -> None:
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "above" / "inner" / "x.png", (1, 2, 3))
    with pytest.raises(ValueError, match=told):
        find_images([str(tmp_path / place)])


def test_files_of_the_test_set_get_what_the_test_said(
    compose: Compose, short: list[str], tmp_path: Path
) -> None:
    cfg = compose(*short, "quantizer=adabin")
    score = execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    data = build_datamodule(cfg)
    data.setup()
    images, labels = data.parts["test"]
    files = []
    for number, image in enumerate(images):
        files.append(tmp_path / f"{number:03d}.png")
        Image.fromarray(image[0].numpy()).save(files[-1])
    net = bnnbench.load(Path(cfg.paths.output_dir) / "checkpoints" / "last.ckpt")
    right = [each.labels[0] for each in predict(net, files)]
    hits = sum(said == str(label) for said, label in zip(right, labels.tolist(), strict=True))
    assert hits / len(labels) == pytest.approx(score, abs=1e-6)
