"""Promotion copies what is finished and refuses what cannot be traced to a commit."""

import json
from pathlib import Path

import pytest

from bnnbench.report.promote import promote


@pytest.fixture
def folders(tmp_path: Path, make_manifest, write) -> dict[str, Path]:
    manifest = make_manifest("quantizer=bnn", "quantizer=xnor")
    write(tmp_path / "sweeps" / "a_sweep" / "sweep.json", manifest)
    names = ("sweeps", "runs", "results")
    return {f"{name}_dir": tmp_path / name for name in names}


@pytest.fixture
def finish(folders, make_result, write):
    """Write the result of a run, with the git state given."""

    def finish_run(run: str, **git) -> Path:
        result = make_result(run.split("=")[1], fingerprint=run, git=git)
        return write(folders["runs_dir"] / run / "result.json", result)

    return finish_run


def test_copies_the_manifest_and_finished_results(folders, finish) -> None:
    source = finish("quantizer=bnn", commit="abc", dirty=False)
    copied = promote("a_sweep", **folders)
    results = folders["results_dir"]
    assert copied == [results / "sweeps/a_sweep.json", results / "runs/quantizer=bnn.json"]
    assert copied[1].read_bytes() == source.read_bytes()
    assert json.loads(copied[1].read_text())["history"]["test/acc"] == [0.7, 0.9]
    assert json.loads(copied[0].read_text())["name"] == "a_sweep"


def test_pictures_go_along(folders, finish) -> None:
    source = finish("quantizer=bnn", commit="abc", dirty=False)
    (source.parent / "pictures").mkdir()
    (source.parent / "pictures" / "boxes.png").write_bytes(b"picture")
    promote("a_sweep", **folders)
    copied = folders["results_dir"] / "figures" / "quantizer=bnn_boxes.png"
    assert copied.read_bytes() == b"picture"


@pytest.mark.parametrize(
    ("git", "why"),
    [
        ({"commit": "abc", "dirty": True}, "uncommitted changes"),
        ({"commit": "abc"}, "uncommitted changes"),
        ({"commit": None, "dirty": None}, "no git commit"),
        ({}, "no git commit"),
    ],
)
def test_refuses_untraceable_results_and_copies_nothing(folders, finish, git, why) -> None:
    finish("quantizer=bnn", commit="abc", dirty=False)
    finish("quantizer=xnor", **git)
    with pytest.raises(ValueError, match=rf"quantizer=xnor/result\.json: .*{why}") as refusal:
        promote("a_sweep", **folders)
    assert "quantizer=bnn" not in str(refusal.value)
    assert "allow_dirty=true" in str(refusal.value)
    assert not folders["results_dir"].exists()
    assert len(promote("a_sweep", **folders, allow_dirty=True)) == 3


def test_unknown_and_unfinished_sweeps(folders) -> None:
    with pytest.raises(FileNotFoundError, match=r"no sweep 'b'.*there are: a_sweep"):
        promote("b", **folders)
    with pytest.raises(ValueError, match="no finished run"):
        promote("a_sweep", **folders)
