"""``python src/data.py check``: what it says of folders that the test wrote itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bnnbench.commands.data import main

ROOT = Path(__file__).resolve().parents[2]
Checked = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Checked:
    """Exit code and text of a check; the contact sheet is ``sheet.png``."""

    def run(folder: Path) -> tuple[int, str]:
        code = main(["check", str(folder), "--out", str(tmp_path / "sheet.png")])
        return code, capsys.readouterr().out

    return run


def flat(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (20, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Three red and two green images to train on, one each to test on, all different."""
    root, tone = tmp_path / "leaves", iter(range(200, 256))
    for split, counts in (("train", {"red": 3, "green": 2}), ("val", {"red": 1, "green": 1})):
        for name, count in counts.items():
            for number in range(count):
                colour = (next(tone), 0, 0) if name == "red" else (0, next(tone), 0)
                flat(root / split / name / f"{number}.png", colour)
    return root


def test_class_folders_are_counted(folders: Path, check: Checked) -> None:
    flat(folders / "train/red/9.bmp", (255, 255, 0), (40, 30))
    code, text = check(folders)
    assert code == 0
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[:6] == [
        f"{folders}: class folders",
        "images: train 6, val 2",
        "classes: 2 (images)",
        "class train val",
        "green 2 1",
        "red 4 1",
    ]
    assert "kinds: 7 PNG RGB, 1 BMP RGB" in lines
    assert "sizes: smallest 20 x 10, median 20 x 10, largest 40 x 30" in lines
    assert "warning" not in text
    assert lines[-2].endswith(f"dataset=image_folder dataset.folder={folders}")


def test_the_sheet_shows_each_class_in_its_row(folders: Path, check: Checked, tmp_path) -> None:
    check(folders)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    middle = sheet.shape[0] // 2
    for rows, channel in ((sheet[:middle], 1), (sheet[middle:], 0)):  # green, then red
        colours = {tuple(pixel) for pixel in rows[:, 170:].reshape(-1, 3).tolist()}
        coloured = {colour for colour in colours if colour != (255, 255, 255)}
        assert coloured
        assert all(np.argmax(colour) == channel for colour in coloured)


def test_all_files_that_cannot_be_read_are_named(folders: Path, check: Checked) -> None:
    (folders / "train/red/a.jpg").write_bytes(b"")
    (folders / "train/red/b.jpg").write_bytes(b"<html>")
    file = folders / "val/green/0.png"
    file.write_bytes(file.read_bytes()[:60])
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folders / "train/green/f.tif")
    code, text = check(folders)
    assert code == 1
    assert "cannot be read: 4\n" in text
    for name, reason in {"a.jpg": "empty", "b.jpg": "web page", "f.tif": "floats"}.items():
        assert any(name in line and reason in line for line in text.splitlines())
    assert str(file) in text
    assert "train on it" not in text


def test_what_is_left_out_is_told(folders: Path, check: Checked) -> None:
    (folders / "train/red/._0.png").touch()
    (folders / "train/.ipynb_checkpoints").mkdir()
    (folders / "train/green/notes.txt").touch()
    flat(folders / "val/loose.png", (1, 2, 3))
    flat(folders / "extra/red/0.png", (1, 2, 3))
    code, text = check(folders)
    assert code == 0
    assert "train: left out 1 files that are no images (1 .txt), such as green/notes.txt" in text
    assert "train: 2 hidden or system files, such as .ipynb_checkpoints" in text
    assert "val: 1 files in no class folder, such as loose.png" in text
    assert "folder extra: no split, not read" in text


def test_equal_content_in_train_and_test_is_warned_of(folders: Path, check: Checked) -> None:
    shutil.copy(folders / "train/red/0.png", folders / "val/red/copy.png")
    shutil.copy(folders / "train/red/0.png", folders / "train/red/copy.png")
    code, text = check(folders)
    assert code == 0
    assert "warning: 1 images are in train and in another split, such as" in text


def test_turned_pictures_are_counted_and_measured_upright(folders: Path, check: Checked) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 100)).save(folders / "train/red/7.jpg", exif=exif)
    _, text = check(folders)
    assert "EXIF orientation: 1\n" in text
    assert "largest 100 x 300" in text


def test_odd_names_are_read_and_move_no_cursor(folders: Path, check: Checked) -> None:
    for name in (b"new\nline.jpg", b"latin \xe9.jpg", "é 'q\".png".encode()):
        shutil.copy(folders / "train/red/0.png", os.fsencode(folders / "train/red") + b"/" + name)
    (folders / "train/red/\x1b[31m.txt").touch()
    code, text = check(folders)
    assert code == 0
    assert "images: train 8, val 2" in text
    assert text.replace("\n", "").isprintable()


def test_a_tree_without_splits_is_read(folders: Path, check: Checked) -> None:
    code, text = check(folders / "train")
    assert code == 0
    assert "images: all 5" in text


def test_many_classes_are_folded(tmp_path: Path, check: Checked) -> None:
    for number in range(30):
        flat(tmp_path / "many" / f"c{number:02}" / "a.png", (number, 0, 0), (4, 4))
    _, text = check(tmp_path / "many")
    assert "classes: 30" in text
    assert "and 15 more, of 1 to 1 images each" in text
    assert len(text.splitlines()) < 30


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root / "val/red"), "val: only one of train and val has red"),
        (lambda root: (root / "val/red/0.png").unlink(), "val/red: it holds no image files"),
        (
            lambda root: (root / "val/red/x.heic").touch(),
            "val: holds 1 pictures of kinds that are not read, such as red/x.heic (HEIC",
        ),
    ],
)
def test_what_stops_a_training_is_told(damage, message, folders: Path, check: Checked) -> None:
    damage(folders)
    code, text = check(folders)
    assert code == 1
    assert message in text


PATCH = ("red", (3, 3, 20, 20), 0)


def test_a_detection_tree_is_counted_by_objects(tmp_path, write_tree, check: Checked) -> None:
    images = {"a": [PATCH, ("blue", (30, 5, 50, 30), 0)], "b": [PATCH], "c": [PATCH], "d": []}
    tree = write_tree(tmp_path / "tree", images, {"train": ["a", "b"], "test": ["c"]})
    code, text = check(tree)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert code == 0
    assert lines[1:6] == [
        "images: train 2, test 1",
        "classes: 2 (objects)",
        "class train test",
        "blue 1 0",
        "red 2 1",
    ]
    assert f"1 images in {tree} are on none of the lists" in text
    colours = Image.open(tmp_path / "sheet.png").convert("RGB").getcolors(2**20) or []
    assert {(31, 119, 180), (255, 127, 14)} <= {colour for _, colour in colours}  # boxes


def test_a_detection_tree_tells_all_its_bad_files(tmp_path, write_tree, check: Checked) -> None:
    tree = write_tree(
        tmp_path / "tree",
        {name: [PATCH] for name in "abcd"},
        {"train": ["a", "b"], "test": ["c", "d"]},
    )
    (tree / "Annotations/a.xml").write_text("<annotation")
    xml = tree / "Annotations/b.xml"
    xml.write_text(xml.read_text().replace("<width>60", "<width>61"))
    (tree / "JPEGImages/c.jpg").write_bytes(b"\xff\xd8\xff")
    code, text = check(tree)
    assert code == 1
    assert "cannot be read: 3\n" in text
    assert "b.jpg: it has 60 x 40 pixels, its XML file says 61 x 40" in text


def test_a_photograph_that_exif_turns_is_named_as_such(tmp_path, write_tree, check) -> None:
    tree = write_tree(
        tmp_path / "tree", {n: [PATCH] for n in "ab"}, {"train": ["b"], "test": ["a"]}
    )
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.open(tree / "JPEGImages/a.jpg").save(tree / "JPEGImages/a.jpg", exif=exif)
    told = (
        "a.jpg: it is a rotated photograph: its EXIF orientation 8 makes it 40 x 60 pixels upright"
    )
    assert told in check(tree)[1]


@pytest.mark.parametrize("form", ["nothing", "file", "nested", "loose", "arrays", "absent"])
def test_a_folder_of_no_known_layout(form, tmp_path: Path, folders: Path, capsys) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    expected = "no images in a layout that is read"
    if form == "nested":
        shutil.move(folders, root / "deeper")
        expected = f"the set may lie in {root / 'deeper'}"
    elif form == "loose":
        flat(root / "a.png", (1, 2, 3))
        expected = "1 images lie in no class folder, such as a.png"
    elif form == "arrays":
        np.savez(root / "x.npz", a=np.zeros(1))
        expected = "x.npz: arrays"
    elif form in ("file", "absent"):
        root = root / "x.txt"
        expected = "x.txt is no folder"
    assert main(["check", str(root)]) == int(form != "arrays")
    captured = capsys.readouterr()
    assert expected in captured.out + captured.err


def test_the_door(folders: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "src" / "data.py"), "check", str(folders)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("contact sheet: leaves_check.png\n")
    assert (tmp_path / "leaves_check.png").stat().st_size > 500


def test_splits_are_called_as_training_knows_them(folders: Path, check: Checked) -> None:
    for split, other in (("train", "Training"), ("val", "Testing")):
        (folders / split).rename(folders / other)
    code, text = check(folders)
    assert code == 0
    assert "Training" in text.splitlines()[1]
    assert "Testing" in text.splitlines()[1]
    assert "no split, not read" not in text


@pytest.mark.parametrize("words", [["check", "--help"], ["check", "gone"], ["chekc", "leaves"]])
def test_what_needs_no_image_imports_no_torch(words: list[str]) -> None:
    code = (
        "import sys\nfrom bnnbench.commands.data import main\n"
        f"try:\n    main({words})\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
