"""What a trained network says of images: a table, a line of JSON an image, boxes drawn.

bnnbench predict ckpt_path=<checkpoint> input=<image, folder or 'pattern'> [...]
  out=predictions   folder of predictions.jsonl and, of a detector, of the images with their boxes
  top=5             classes of an image at most; of a detector boxes, 50 unless given
  score=0.3         least score of a detector's box
  trust=[mypkg]     packages whose classes the checkpoint may name beside this one

Further images may follow as bare words, as a shell writes them for *.jpg.
"""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from bnnbench.commands.words import answered, check_checkpoint, meant, names
from bnnbench.data.known import IMAGE_EXTENSIONS
from bnnbench.data.listing import listed

if TYPE_CHECKING:
    from bnnbench.runs.prediction import Prediction
    from bnnbench.runs.trained import Trained

KEYS = ("ckpt_path", "input", "out", "top", "score", "trust")
CLASSES, BOXES = 5, 50  # that are told of an image
SCORE = 0.3  # of a box, at least


@dataclass
class Options:
    """What was typed."""

    ckpt_path: str = ""
    input: list[str] = field(default_factory=list)
    out: str = "predictions"
    top: int | None = None
    score: float | None = None
    trust: list[str] = field(default_factory=list)


def run() -> None:
    """The command with the arguments of ``sys.argv``; exits with 1 where an image is not read."""
    unread = answered(__doc__, lambda words: predicted(parsed(words)))
    if unread is not None:
        raise SystemExit(int(unread > 0))


def parsed(words: Sequence[str]) -> Options:
    """The options that ``key=value`` words give; bare words are inputs. Raises ValueError."""
    found = Options()
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or (key not in KEYS and Path(word).exists()):
            found.input.append(word)
        elif key == "input":
            found.input += [value] if value else []
        elif key in ("ckpt_path", "out"):
            setattr(found, key, value)
        elif key == "trust":
            found.trust = names(value)
        elif key == "top":
            found.top = int(_number(key, value, 1, None))
        elif key == "score":
            found.score = _number(key, value, 0, 1)
        else:
            raise ValueError(f"{word}: no such key; {meant(key, KEYS)}")
    for key, example in (("ckpt_path", "<checkpoint of a run>"), ("input", "<image or folder>")):
        if not getattr(found, key):
            raise ValueError(f"give {key}={example}")
    return found


def _number(key: str, value: str, least: float, most: float | None) -> float:
    kind = "a whole number from 1 on" if most is None else f"a number from {least} to {most}"
    try:
        number = int(value) if most is None else float(value)
    except ValueError:
        number = math.nan
    if not least <= number <= (math.inf if most is None else most):
        raise ValueError(f"{key}={value}: give {kind}")
    return number


def find_images(inputs: Sequence[str]) -> list[Path]:
    """The images that some words name, each a file, a folder or a pattern; each image once.

    Raises:
        ValueError: one names none.
    """
    found: dict[Path, None] = {}
    for word in inputs:
        named = _named(word)
        if not named:
            raise ValueError(f"input={word}: {_nothing(Path(word).expanduser())}")
        found |= dict.fromkeys(named)
    return list(found)


def _named(word: str) -> list[Path]:
    path = Path(word).expanduser()
    if path.is_dir():
        return [path / name for name in listed(path).images]
    if path.is_file():
        return [path]
    matches = sorted(glob.glob(str(path), recursive=True))
    return [Path(m) for m in matches if m.lower().endswith(IMAGE_EXTENSIONS) and Path(m).is_file()]


def _nothing(path: Path) -> str:
    if not path.is_dir():
        return "there is no such file or folder, and no image whose name fits"
    below = listed(path).folders
    deeper = f"; for the images of its folders give '{path}/**/*'" if below else ""
    return f"the folder holds no image{deeper}"


def predicted(options: Options) -> int:
    """Predict, print, write; the number of images that could not be read."""
    if Path(options.out).expanduser().is_file():
        raise ValueError(f"out={options.out} is a file: give a folder")
    check_checkpoint(options.ckpt_path)
    files = find_images(options.input)
    from bnnbench.runs.prediction import predict  # with torch, which takes seconds
    from bnnbench.runs.trained import load

    trained = load(options.ckpt_path, options.trust)
    if options.score is not None and trained.task != "detection":
        raise ValueError(f"score={options.score} is of a detector's boxes: leave it out")
    top = options.top or (BOXES if trained.task == "detection" else CLASSES)
    out = Path(options.out).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    pictures = places(files, out)
    shown: list[Prediction] = []
    with (out / "predictions.jsonl").open("w", encoding="utf-8") as lines:
        for each in predict(trained, files, top, SCORE if options.score is None else options.score):
            lines.write(f"{json.dumps(each.as_dict(), ensure_ascii=False)}\n")
            if each.boxes is not None:
                draw(each, trained, pictures[each.file])
            shown.append(each)
    show(shown, trained)
    print(f"Written to {out}: predictions.jsonl{', images' * (trained.task == 'detection')}")
    return sum(bool(each.reason) for each in shown)


def show(predictions: Sequence[Prediction], trained: Trained) -> None:
    """Print a row an image: its classes with probabilities, or what it holds how often."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    folder = os.path.commonpath([each.file.absolute().parent for each in predictions])
    print(f"{trained.name} on {folder}")  # which a table's title would fold
    table = Table()
    table.add_column("image", overflow="fold")
    table.add_column("found" if trained.task == "detection" else "classes", overflow="fold")
    for each in predictions:
        name = os.path.relpath(each.file.absolute(), folder)
        table.add_row(escape(name), escape(_in_words(each)))
    Console().print(table)


def _in_words(each: Prediction) -> str:
    if each.reason:
        return f"cannot be read: {each.reason}"
    if each.boxes is None:
        pairs = zip(each.labels, each.scores, strict=True)
        return ", ".join(f"{name} {100 * score:.1f} %" for name, score in pairs)
    counts = {name: each.labels.count(name) for name in dict.fromkeys(each.labels)}
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"


def draw(each: Prediction, trained: Trained, place: Path) -> None:
    """Write an image with its boxes as PNG, each class in a colour of its own."""
    import torch
    from matplotlib import get_data_path
    from torchvision.io import write_png
    from torchvision.utils import draw_bounding_boxes

    from bnnbench.data.decoding import read_image
    from bnnbench.plots import row_colours

    image = read_image(str(each.file))
    if each.boxes:
        palette = row_colours(trained.class_names)
        texts = [f"{n} {s:.2f}" for n, s in zip(each.labels, each.scores, strict=True)]
        image = draw_bounding_boxes(
            image,
            torch.tensor(each.boxes),
            labels=texts,
            colors=[_bytes(palette[name]) for name in each.labels],
            width=2,
            font=f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf",
            font_size=12,
            fill_labels=True,
            label_colors="white",
        )
    write_png(image, str(place))


def _bytes(colour: object) -> tuple[int, int, int]:
    from matplotlib.colors import to_rgb

    red, green, blue = (round(255 * part) for part in to_rgb(colour))  # pyright: ignore
    return red, green, blue


def places(files: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where each image's picture is written; several of one name are numbered."""
    found: dict[Path, Path] = {}
    taken: set[Path] = set()
    for file in files:
        names = chain([file.stem], (f"{file.stem}_{number}" for number in count(2)))
        found[file] = next(p for name in names if (p := folder / f"{name}.png") not in taken)
        taken.add(found[file])
    return found
