"""What counts as an image of a set, in class folders, detection folders and stamps alike."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from bnnbench.data import DatasetDamaged, listing, stamp
from bnnbench.data.folders import class_names, list_files
from bnnbench.data.known import IMAGE_EXTENSIONS
from bnnbench.data.voc_tree import split_files

NO_DATA = ("._1.png", ".hidden.jpg", "Thumbs.db", "THUMBS.DB", "desktop.ini", ".DS_Store")
NO_FOLDERS = (".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir")


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), "red").save(path, "PNG")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes in two splits, two images each."""
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            for number in (1, 2):
                image(tmp_path / "set" / split / name / f"{number}.png")
    return tmp_path / "set"


def names(root: Path, split: str = "train") -> list[str]:
    files, _ = list_files(root / split, class_names(root / split))
    return [file.decode().removeprefix(f"{root / split}/") for file in files]


FOUR = ["ant/1.png", "ant/2.png", "bee/1.png", "bee/2.png"]


def test_what_systems_leave_behind_is_no_data(root: Path, recwarn) -> None:
    before = stamp.of_folders(root)
    for folder in NO_FOLDERS:
        image(root / "train" / folder / "x.png")
        image(root / "train" / "ant" / folder / "x.png")
    for file in NO_DATA:
        (root / "train" / "bee" / file).write_bytes(b"\0\5\x16\7")
    assert class_names(root / "train") == ["ant", "bee"]
    assert names(root) == FOUR
    assert stamp.of_folders(root) == before
    assert [w for w in recwarn if "left out" in str(w.message)] == []


def test_the_stamp_of_plain_folders_is_names_and_sizes(root: Path) -> None:
    """Written out, as it has always been: runs on present sets are found again."""
    size = (root / "train" / "ant" / "1.png").stat().st_size
    lines = [f"{split}/{name} {size}\n" for split in ("train", "val") for name in FOUR]
    assert stamp.of_folders(root) == f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


@pytest.mark.parametrize("ending", [*IMAGE_EXTENSIONS, ".PNG", ".JPEG", ".Tif", ".GIF"])
def test_endings_in_any_case_are_images(ending: str, root: Path) -> None:
    image(root / "train" / "ant" / f"3{ending}")
    assert f"ant/3{ending}" in names(root)


def test_files_that_are_no_images_are_counted_and_named_once(root: Path) -> None:
    for number in range(3):
        (root / "train" / "ant" / f"{number}.txt").touch()
    (root / "train" / "bee" / "README").touch()
    image(root / "train" / "bee" / "masks" / "1.png")
    told = r"4 files that are no images \(3 \.txt, 1 without ending\), such as ant/\d\.txt and "
    with pytest.warns(UserWarning, match=told + r"1 folders .*, such as bee/masks") as caught:
        assert names(root) == FOUR
    assert len([w for w in caught if "left out" in str(w.message)]) == 1


@pytest.mark.parametrize("ending", [".heic", ".HEIF", ".jxl", ".jp2", ".exr", ".hdr"])
def test_pictures_that_are_not_read_are_not_lost_in_silence(ending: str, root: Path) -> None:
    (root / "train" / "bee" / f"3{ending}").touch()
    with pytest.raises(DatasetDamaged, match=rf"1 pictures .* bee/3\{ending} .*convert them"):
        names(root)


def test_classes_with_a_folder_of_images_are_read(root: Path) -> None:
    """Tiny-ImageNet's; folders side by side within a class would be classes of their own."""
    image(root / "train" / "cow" / "images" / "b.JPEG")
    image(root / "train" / "cow" / "images" / "a.JPEG")
    (root / "train" / "cow" / "cow_boxes.txt").touch()
    assert names(root) == [*FOUR, *(f"cow/images/{n}.JPEG" for n in "ab")]
    before = stamp.of_folders(root)
    shutil.copy(root / "train/ant/1.png", root / "train/cow/images/d.JPEG")
    assert stamp.of_folders(root) != before
    image(root / "train" / "cow" / "more" / "c.JPEG")
    with pytest.raises(DatasetDamaged, match="cow holds no image files"):
        names(root)


def as_list(root: Path) -> None:
    """Turn a split into the form of Tiny-ImageNet's validation set."""
    rows = []
    for name in ("ant", "bee"):
        for file in sorted((root / "val" / name).iterdir()):
            target = root / "val" / "images" / f"{name[0]}{file.name}"
            target.parent.mkdir(exist_ok=True)
            file.rename(target)
            rows.append(f"{target.name}\t{name}\t0\t0\t3\t3\n")
        (root / "val" / name).rmdir()
    (root / "val" / "val_annotations.txt").write_text("".join(reversed(rows)))


def test_a_list_of_annotations_tells_the_classes_of_one_folder(root: Path) -> None:
    as_list(root)
    assert class_names(root / "val") == ["ant", "bee"]
    files, labels = list_files(root / "val", ["ant", "bee"])
    assert [Path(f.decode()).name for f in files] == ["a1.png", "a2.png", "b1.png", "b2.png"]
    assert labels.tolist() == [0, 0, 1, 1]
    before, path = stamp.of_folders(root), root / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace("a2.png\tant", "a2.png\tbee"))
    assert list_files(root / "val", ["ant", "bee"])[1].tolist() == [0, 1, 1, 1]
    assert stamp.of_folders(root) != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_text("a1.png ant\n"), "no list of file name and class"),
        (lambda path: path.write_bytes(b"\xff\xfe\xfa"), "no list of file name and class"),
        (lambda path: image(path.parent / "images" / "c.png"), "differ in 1 images, such as c"),
        (lambda path: (path.parent / "images" / "a1.png").unlink(), "differ in 1 .* a1"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(change, message: str, root: Path) -> None:
    as_list(root)
    change(root / "val" / "val_annotations.txt")
    with pytest.raises(DatasetDamaged, match=message):
        listing.class_images(root / "val")


def test_a_list_left_behind_beside_class_folders_is_a_file(root: Path) -> None:
    (root / "val" / "val_annotations.txt").touch()
    assert names(root, "val") == FOUR


def test_detection_folders_follow_the_same_rule(tmp_path: Path, write_tree) -> None:
    patch = [("red", (3, 3, 20, 20), 0)]
    tree = write_tree(tmp_path / "tree", {"a": patch}, {"test": ["a"]})
    before = stamp.of_trees(tree, {"test": ["test"]})
    for folder, ending in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (tree / folder / f"._a.{ending}").write_bytes(b"\0\5\x16\7")
        (tree / folder / f"a.{ending}.d").mkdir()
    assert [Path(file).name for file, _ in split_files(tree, "test")] == ["a.jpg"]
    assert stamp.of_trees(tree, {"test": ["test"]}) == before
    (tree / "ImageSets" / "Main" / "test.txt").write_text("._a\n")
    with pytest.raises(DatasetDamaged, match=r"lists \._a, which has no image"):
        list(split_files(tree, "test"))


def test_a_link_that_leads_nowhere_is_named(root: Path) -> None:
    (root / "train" / "ant" / "3.png").symlink_to(root / "gone.png")
    with pytest.raises(DatasetDamaged, match=r"ant/3\.png is a link that leads nowhere: mend or"):
        stamp.of_folders(root)


def test_listing_loads_no_torch() -> None:
    code = (
        "import sys, bnnbench.data.listing, bnnbench.data.stamp; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_folder_that_has_not_changed_is_not_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    asked: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: asked.append(str(path)) or scan(path))
    assert [listing.folders_in(tmp_path) for _ in range(3)] == [["a"]] * 3
    assert len(asked) == 3  # it is younger than the tick of a clock
    os.utime(tmp_path, ns=(0, 10**18))
    assert [listing.folders_in(tmp_path) for _ in range(3)] == [["a"]] * 3
    assert len(asked) == 4
    (tmp_path / "b").mkdir()
    assert listing.folders_in(tmp_path) == ["a", "b"]


def test_whether_a_folder_holds_images_is_what_its_listing_says(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    for name in ("._x.jpg", ".hidden.jpg", "notes.txt"):
        (tmp_path / name).touch()
    assert not listing.holds(tmp_path, (".jpg",))
    (tmp_path / "x.JPG").touch()
    assert listing.holds(tmp_path, (".jpg",))
    assert listing.listed(tmp_path, (".jpg",)).images == ["x.JPG"]
