"""`bnnbench robustness`: what is typed, mistakes of it, and one evaluation of a packed network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bnnbench.commands import robustness
from bnnbench.commands.robustness import check_standing, measured, of_sweep, parsed
from bnnbench.report import robustness as report
from bnnbench.runs import robustness as evaluation

ROOT = Path(__file__).resolve().parents[2]
ZOO = ROOT / "zoo"
XNOR = str(ZOO / "resnet20_xnor_digits.safetensors")
CELL = {"overrides": {}, "fingerprint": "f", "settings": {}, "choices": {}}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give networks="),
        (["networks=none.ckpt"], "networks=none.ckpt: there is no such file"),
        ([XNOR, "dataset=cifar10"], "did you mean cifar10c"),
        ([XNOR, "corruptions=frog"], "did you mean frost|did you mean fog"),
        ([XNOR, "corruptions="], "holds nothing"),
        ([XNOR, "severities=0"], "severities=0: choose from 1"),
        ([XNOR, "severities=[1,6]"], "severities=6: choose from 1"),
        ([XNOR, "images=some"], "images=some: give a whole number"),
        ([XNOR, "images=0"], "images=0: give a whole number"),
        ([XNOR, "name=a/b"], "name=a/b: give a name without folders"),
        ([XNOR, "corruption=fog"], "did you mean corruptions"),
        ([XNOR, f"out={XNOR}"], "is a file: give a folder"),
        ([str(ZOO)], "it is a folder: give a checkpoint"),
        ([XNOR, f"data_dir={XNOR}"], "data_dir=.* is a file: give a folder"),
    ],
)
def test_a_mistake_is_told(words: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parsed(words)


def test_a_sweep_gives_the_last_checkpoints_of_its_finished_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "sweeps" / "mine" / "sweep.json"
    manifest.parent.mkdir(parents=True)
    cells = [CELL | {"run": run} for run in ("a", "b", "a", "c")]
    sweep = {"schema": 2, "name": "s", "command": "c", "table": None, "scale": None}
    sweep |= {"swept": [], "shared": {}, "figures": [], "scale_notes": None}
    manifest.write_text(json.dumps(sweep | {"headline": "test/acc", "cells": cells}))
    logs = f"logs={tmp_path}"
    with pytest.raises(ValueError, match="sweep=mine: none of its runs is finished"):
        parsed(["sweep=mine", logs])
    result = next(ROOT.glob("results/runs/digits_*.json")).read_text()
    for run, records in {"a": ["result.json"], "b": []}.items():
        folder = tmp_path / "runs" / run
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "last.ckpt").touch()
        for name in records:
            (folder / name).write_text(result)
    capsys.readouterr()
    last = tmp_path / "runs" / "a" / "checkpoints" / "last.ckpt"
    assert parsed([XNOR, "sweep=mine", logs]).networks == [XNOR, str(last)]
    told = capsys.readouterr().err.splitlines()
    assert told == ["left out: b is not finished", "left out: c is not finished"]
    staged = tmp_path / "runs" / "a" / "stage2_full" / "checkpoints" / "last.ckpt"
    with monkeypatch.context() as patch:
        patch.setattr(
            robustness, "trained", lambda run: ({}, run / "stage2_full/checkpoints/last.ckpt")
        )
        assert of_sweep("mine", tmp_path)[0] == str(staged)
    with pytest.raises(ValueError, match="sweep=mein: did you mean mine"):
        parsed(["sweep=mein", logs])
    with pytest.raises(ValueError, match="there are no sweeps in"):
        parsed(["sweep=mine", f"logs={tmp_path / 'runs'}"])


def test_a_network_of_other_data_is_told(tmp_path: Path) -> None:
    options = parsed([XNOR, "dataset=cifar10c", f"out={tmp_path}"])
    with pytest.raises(ValueError, match="was trained on digits: set dataset=digits"):
        measured(options)


def test_a_packed_network_loses_with_severity(tmp_path: Path) -> None:
    words = ["corruptions=gaussian_blur,contrast", "images=200", "name=x", f"out={tmp_path}"]
    file = measured(parsed([XNOR, "dataset=digits", *words]))
    found = json.loads(file.read_text())
    (network,) = found["networks"]
    assert (found["source"], found["images"], found["of"]) == ("generated", 200, 360)
    assert network["clean"] > 0.9
    for scores in network["accuracy"].values():
        assert len(scores) == 5
        assert scores[4] < scores[0] <= network["clean"] + 0.02
    for suffix in ("md", "csv", "tex", "png"):
        assert (tmp_path / f"x.{suffix}").stat().st_size > 100


STANDING = {"dataset": "digits", "source": "generated", "images": 50}
STANDING |= {"severities": [1, 5]}


def networks(names: str) -> dict[str, object]:
    accuracy = {"fog": [0.1], "frost": [0.1]}
    return {"networks": [{"fingerprint": name, "accuracy": accuracy} for name in names]}


@pytest.mark.parametrize(
    ("other", "corruptions"),
    [
        (networks("a"), ["fog", "frost"]),
        ({"images": 49}, ["fog", "frost"]),
        ({"severities": [1]}, ["fog", "frost"]),
        ({}, ["fog"]),
        ({"source": "published"}, ["fog", "frost"]),
        ({"dataset": "cifar10c"}, ["fog", "frost"]),
    ],
)
def test_an_evaluation_that_holds_more_is_not_written_over(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    other: dict[str, object],
    corruptions: list[str],
) -> None:
    file = tmp_path / "robustness_digits.json"
    stands = STANDING | networks("ab")
    file.write_text(json.dumps(stands))
    monkeypatch.setattr(report, "read", lambda path: json.loads(path.read_text()))
    check_standing(file, stands, ["fog", "frost"])
    check_standing(file, stands | networks("bca") | {"images": 60}, ["frost", "fog", "snow"])
    check_standing(tmp_path / "another.json", stands | other, corruptions)
    with pytest.raises(ValueError, match=r"2 networks on 50 images .* set name=<another>"):
        check_standing(file, stands | other, corruptions)


def test_it_is_refused_before_anything_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [XNOR, "dataset=digits", "images=40", "corruptions=fog", f"out={tmp_path}"]
    measured(parsed([*words, "severities=1,2"]))
    monkeypatch.setattr(evaluation, "_accuracies", lambda *_: pytest.fail("was evaluated"))
    with pytest.raises(ValueError, match="severities that this would lose"):
        measured(parsed([*words, "severities=1"]))


def test_the_size_of_batches_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [XNOR, "dataset=digits", "images=40", "corruptions=fog", "severities=1"]
    found = []
    for size in (7, 250):
        monkeypatch.setattr(evaluation, "BATCH", size)
        found.append(measured(parsed([*words, f"out={tmp_path / str(size)}"])))
    first, second = (json.loads(file.read_text())["networks"] for file in found)
    assert first == second
