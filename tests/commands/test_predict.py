"""``bnnbench predict``: what is typed, printed and written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from bnnbench.commands import predict as command
from bnnbench.commands.predict import Options, parsed, places, predicted
from bnnbench.records.signature import Signature
from bnnbench.runs.trained import Trained
from bnnbench.tasks.rebuilt import Described

CHECKPOINT = __file__  # which nobody reads


class Net(nn.Module):
    """Says the second class, and as a detector finds it once."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([0.0, 3.0]).expand(len(images), 2)

    def detect(self, outputs: Tensor) -> list[dict[str, Tensor]]:
        one = {"boxes": [[2.0, 2, 6, 6]], "scores": [0.9], "labels": [2]}
        return [{key: torch.tensor(value) for key, value in one.items()} for _ in outputs]


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    known = {"in_channels": 3, "image_size": 8, "_target_": "x", "task": request.param}
    signature = Signature("run", "0" * 64, None, {}, None, ["ant", "[b]"], [0.0] * 3, [1.0] * 3)
    trained = Trained(Net(), Described({}, signature, {"dataset": known}))
    monkeypatch.setattr("bnnbench.runs.trained.load", lambda path, trust: trained)
    return request.param


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (128, 128, 128)).save(path)
    return path


def test_words_become_options(tmp_path: Path) -> None:
    odd = picture(tmp_path / "a=b.png")
    words = ["ckpt_path=x=y.ckpt", "input=dir", str(odd), "c.png", "top=3", "score=0.5"]
    assert parsed([*words, "trust=[mypkg,other]", "out=o"]) == Options(
        "x=y.ckpt", ["dir", str(odd), "c.png"], "o", 3, 0.5, ["mypkg", "other"]
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("input=x", "give ckpt_path=<checkpoint of a run>"),
        ("ckpt_path=x", "give input=<image or folder>"),
        ("ckpt_path=x input=", "give input="),
        ("zz=x input=x", "zz=x: no such key; there are ckpt_path, input"),
        ("ckpt_pth=x input=x", "did you mean ckpt_path?"),
        ("ckpt_path=x input=x top=0", "top=0: give a whole number from 1 on"),
        ("ckpt_path=x input=x top=1.5", "top=1.5: give a whole number from 1 on"),
        ("ckpt_path=x input=x score=2", "score=2: give a number from 0 to 1"),
        ("ckpt_path=x input=x score=nan", "score=nan: give a number from 0 to 1"),
    ],
)
def test_mistakes_say_what_to_type(words: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        parsed(words.split())


@pytest.mark.parametrize("task", ["classification"], indirect=True)
def test_classes_are_a_table_and_lines_of_json(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"")
    options = Options(CHECKPOINT, [str(tmp_path / "in")], str(tmp_path / "out"))
    assert predicted(options) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "[b] 95.3 %, ant 4.7 %" in told  # a name in brackets is no markup
    assert "cannot be read: it is empty" in told
    first, second = map(json.loads, (tmp_path / "out/predictions.jsonl").read_text().splitlines())
    assert first["predictions"][0] == {"label": "[b]", "score": pytest.approx(0.9526, abs=1e-4)}
    assert second["error"] == "it is empty"


def test_a_file_in_the_place_of_a_folder_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    options = Options(CHECKPOINT, [str(tmp_path / "a.png")], str(tmp_path / "a.png"))
    with pytest.raises(ValueError, match=r"a\.png is a file: give a folder"):
        predicted(options)


@pytest.mark.parametrize("task", ["classification"], indirect=True)
def test_a_score_of_boxes_is_refused_where_there_are_none(task: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    out = tmp_path / "out"
    options = Options(CHECKPOINT, [str(tmp_path / "a.png")], str(out), score=0.5)
    with pytest.raises(ValueError, match=r"score=0\.5 is of a detector's boxes"):
        predicted(options)
    assert not out.exists()


@pytest.mark.parametrize("task", ["detection"], indirect=True)
def test_boxes_are_drawn_over_the_image(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "a.png")
    assert predicted(Options(CHECKPOINT, [str(tmp_path / "a.png")], str(tmp_path / "out"))) == 0
    assert "1 [b]" in capsys.readouterr().out
    drawn = Image.open(tmp_path / "out" / "a.png").convert("RGB")
    assert drawn.size == (32, 32)
    grey = (128, 128, 128)
    assert drawn.getpixel((24, 20)) != grey  # the right edge: 6 of 8 pixels, scaled by four
    assert drawn.getpixel((30, 30)) == grey


def test_pictures_of_one_name_are_numbered(tmp_path: Path) -> None:
    files = [Path("a/x.png"), Path("b/x.jpg"), Path("x_2.png"), Path("c/x.png")]
    assert [p.name for p in places(files, tmp_path).values()] == [
        "x.png", "x_2.png", "x_2_2.png", "x_3.png",
    ]  # fmt: skip


def test_help_and_mistakes_end_in_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["bnnbench predict", "--help"])
    command.run()
    assert "score=0.3" in capsys.readouterr().out
    words = [f"ckpt_path={tmp_path}/no.ckpt", f"input={picture(tmp_path / 'a.png')}"]
    monkeypatch.setattr("sys.argv", ["bnnbench predict", *words])
    with pytest.raises(SystemExit, match="error: there is no checkpoint at "):
        command.run()
